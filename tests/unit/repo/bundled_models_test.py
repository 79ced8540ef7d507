"""The bundled models are what their folders promise: the files of a Hugging Face model, bf16, small, one tokenizer."""
import json
import pathlib
import struct
import unittest

MODELS = pathlib.Path(__file__).resolve().parents[3] / "models"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md"]


def tensors(folder):
    with open(folder / "model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    header.pop("__metadata__", None)
    return header


class BundledModels(unittest.TestCase):
    def test_each_has_its_files_and_is_small(self):
        for name in ("inferneo-story", "inferneo-code", "inferneo-story-draft"):
            folder = MODELS / name
            for file in FILES:
                self.assertTrue((folder / file).is_file(), f"{name}/{file}")
            self.assertLessEqual((folder / "model.safetensors").stat().st_size, 8 << 20, name)
            self.assertEqual({t["dtype"] for t in tensors(folder).values()}, {"BF16"}, name)
            config = json.loads((folder / "config.json").read_text())
            self.assertEqual(config["architectures"], ["LlamaForCausalLM"])
            self.assertEqual(tensors(folder)["model.embed_tokens.weight"]["shape"], [config["vocab_size"], config["hidden_size"]])
            self.assertIn("add_generation_prompt", json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])
            self.assertIn("Held-out loss", (folder / "README.md").read_text())

    def test_the_draft_is_a_fifth_and_shares_the_tokenizer(self):
        story, draft = MODELS / "inferneo-story", MODELS / "inferneo-story-draft"
        self.assertLessEqual(5 * (draft / "model.safetensors").stat().st_size, (story / "model.safetensors").stat().st_size)
        self.assertEqual((draft / "tokenizer.json").read_bytes(), (story / "tokenizer.json").read_bytes())


if __name__ == "__main__":
    unittest.main()
