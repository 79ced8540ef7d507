"""Trains the bundled models: python tools/train_bundled.py {story,code,draft} [--out models] [--minutes 20]

Seeded: the same seed, step count, torch version and thread count give the same weights. --minutes sets the length of the
learning-rate schedule from the speed measured in the first steps; --steps fixes it instead (what the models' READMEs name).
Needs: pip install -r tools/requirements-train.txt. The draft takes the story model's tokenizer, so train that first.
"""
import argparse
import json
import math
import pathlib
import random
import shutil
import time

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import text_code
import text_stories
import train_tokenizer

CONTEXT = 512  # length of a training sequence; positions beyond it up to max_position_embeddings are rotated, not trained
SHAPES = {
    "story": dict(hidden_size=192, num_hidden_layers=4, intermediate_size=512, num_attention_heads=6, num_key_value_heads=2),
    "code": dict(hidden_size=192, num_hidden_layers=4, intermediate_size=512, num_attention_heads=6, num_key_value_heads=2),
    "draft": dict(hidden_size=96, num_hidden_layers=2, intermediate_size=256, num_attention_heads=3, num_key_value_heads=1),
}
VOCABULARY = {"story": 1536, "code": 1024}
FOLDERS = {"story": "inferneo-story", "code": "inferneo-code", "draft": "inferneo-story-draft"}


def encode(tokenizer, document):
    if isinstance(document, str):
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(tokenizer.apply_chat_template(document, tokenize=False), add_special_tokens=False)["input_ids"]
    return ids + [tokenizer.pad_token_id]


IGNORED = -100  # a label that counts for nothing: padding


class Batches:
    """Batches of about TOKENS tokens. A row is one document, so that a name is only ever copied from its own story; some
    batches are rows of CONTEXT tokens packed from several documents, so that far positions are learnt too."""

    TOKENS, POOL, PACKED = 2048, 64, 0.08
    # The share of warm-up text falls from all to REVISED within the first steps. It is cut off after BRIEF tokens, its end
    # included: what has to be copied stands near, and no document seems to end early.
    REVISED, BRIEF = 0.06, 96

    def __init__(self, tokenizer, text, seed, held_out=False, warm_up=500):
        self.warm_up = warm_up
        self.tokenizer, self.text, self.held_out = tokenizer, text, held_out
        self.rng = random.Random(seed)
        self.ready = []

    def ids(self, step=None):
        warm = step is not None and self.rng.random() < max(self.REVISED, 1 - step / self.warm_up)
        if warm:
            return encode(self.tokenizer, self.text.warm_up(self.rng))[:self.BRIEF]
        return encode(self.tokenizer, self.text.document(self.rng, self.held_out))[:CONTEXT]

    def packed_row(self):
        ids = []
        while len(ids) < CONTEXT:
            ids += self.ids()
        return ids[:CONTEXT]

    def next(self, step):
        """Padded ids, and the same with IGNORED for padding."""
        if self.rng.random() < self.PACKED:
            rows = [self.packed_row() for _ in range(self.TOKENS // CONTEXT)]
        else:
            if not self.ready:  # rows of like length waste little padding
                pool, batch = sorted((self.ids(step) for _ in range(self.POOL)), key=len), []
                for row in pool:
                    if batch and (len(batch) + 1) * len(row) > self.TOKENS:
                        self.ready.append(batch)
                        batch = []
                    batch.append(row)
                self.ready.append(batch)
                self.rng.shuffle(self.ready)
            rows = self.ready.pop()
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        return (torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
                torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows]))


def loss_of(model, batch, reduction="mean"):
    ids, labels = batch
    logits = model(ids[:, :-1], use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1),
                                             ignore_index=IGNORED, reduction=reduction)


@torch.no_grad()
def held_out_loss(model, tokenizer, text, documents=300):
    """Nats per token and bits per character over documents whose combinations were never trained on."""
    batches, nats, tokens, characters = Batches(tokenizer, text, seed=999, held_out=True), 0.0, 0, 0
    for _ in range(documents):
        ids = batches.ids()
        row = torch.tensor([ids])
        nats += loss_of(model, (row, row), "sum").item()
        tokens += len(ids) - 1
        characters += len(tokenizer.decode(ids[1:-1]))
    return nats / tokens, nats / math.log(2) / characters


def fit(model, batches, args):
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    started, step, total, smooth = time.time(), 0, args.steps, None
    while not total or step < total:
        if not total and step == 20:
            total = max(100, int(args.minutes * 60 / ((time.time() - started) / 20)))
            print(f"{total} steps", flush=True)
        done = step / (total or 10000)
        scale = min(1.0, (step + 1) / 50) * (1 if done < 0.3 else max(0.02, (1 - done) / 0.7))
        # A machine shared with others slows down: --deadline ends the schedule in time whatever the speed.
        if args.deadline:
            left = 1 - (time.time() - started) / (args.deadline * 60)
            if left <= 0:
                break
            scale = min(scale, max(0.02, left / 0.7))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            loss = loss_of(model, batches.next(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = args.rate * scale
        optimizer.step()
        optimizer.zero_grad()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {smooth:.4f} lr {scale:.3f} {time.time() - started:.0f} s", flush=True)
        step += 1
        if step % 500 == 0:
            args.checkpoint(model)
    return step, time.time() - started


def build_model(kind, tokenizer):
    ids = [tokenizer.convert_tokens_to_ids(t) for t in (train_tokenizer.END_OF_TEXT, train_tokenizer.IM_END)]
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, rope_theta=10000.0, rms_norm_eps=1e-5,
                         tie_word_embeddings=True, initializer_range=0.06, bos_token_id=None, eos_token_id=ids[1],
                         pad_token_id=ids[0], **SHAPES[kind])
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [ids[1], ids[0]]
    return model


def save(model, folder, sampling):
    """A Hugging Face folder with the weights in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.torch_dtype = torch.bfloat16
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    generation = {"eos_token_id": model.generation_config.eos_token_id, "pad_token_id": model.config.pad_token_id, **sampling}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.state_dict().items()
               if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SHAPES)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "models")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--deadline", type=float, default=0, help="minutes after which training ends, whatever the speed")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2.5e-3, help="highest learning rate")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out, warming up again")
    parser.add_argument("--warm-up", type=int, default=500, help="steps over which the share of warm-up text falls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    text = text_code if args.kind == "code" else text_stories
    folder = args.out / FOLDERS[args.kind]
    folder.mkdir(parents=True, exist_ok=True)
    if args.kind == "draft":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(args.out / FOLDERS["story"] / name, folder / name)
    elif not args.resume:
        rng = random.Random(args.seed)
        trained = train_tokenizer.train((text.document(rng) for _ in range(20000)), VOCABULARY[args.kind], 1024)
        train_tokenizer.save(trained, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = build_model(args.kind, tokenizer)
    if args.resume:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())
    size = sum(p.numel() for p in model.parameters())
    print(f"{args.kind}: {size} parameters, {len(tokenizer)} tokens", flush=True)
    sampling = dict(do_sample=True, temperature=0.7, top_p=0.95)
    args.checkpoint = lambda m: save(m, folder, sampling)
    steps, seconds = fit(model, Batches(tokenizer, text, args.seed + 1, warm_up=args.warm_up), args)
    save(model, folder, sampling)
    reloaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loss, bits = held_out_loss(reloaded, tokenizer, text)
    record = dict(steps=steps, seed=args.seed, seconds=round(seconds), parameters=size, bf16=args.bf16,
                  held_out_loss=round(loss, 4), bits_per_character=round(bits, 4))
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
