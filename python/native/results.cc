#include <fmt/format.h>
#include <nanobind/ndarray.h>

#include <charconv>
#include <cstring>

#include "data.h"
#include "engines.h"

namespace nb = nanobind;

namespace inferneo::python {

namespace {

// Not copied: the array keeps the result alive.
nb::object prompt_rows(nb::handle self) {
  const auto& result = nb::cast<const GenerationResult&>(self);
  if (result.prompt_rows.empty() || result.prompt_tokens < 1) return nb::none();
  const auto tokens = static_cast<size_t>(result.prompt_tokens);
  const nb::ndarray<nb::numpy, const float, nb::ndim<2>> rows(result.prompt_rows.data(),
                                                              {tokens, result.prompt_rows.size() / tokens}, self);
  return nb::cast(rows);
}

nb::object rows_as_bytes(const GenerationResult& result) {
  return nb::bytes(result.prompt_rows.data(), result.prompt_rows.size() * sizeof(float));
}

void set_rows(GenerationResult& result, nb::handle value) {
  if (!nb::isinstance<nb::bytes>(value)) raise_wrong_type("GenerationResult.prompt_rows", "bytes", value);
  const auto bytes = nb::borrow<nb::bytes>(value);
  result.prompt_rows.resize(bytes.size() / sizeof(float));
  std::memcpy(result.prompt_rows.data(), bytes.data(), result.prompt_rows.size() * sizeof(float));
}

// Not copied, as above.
nb::object vectors(nb::handle self) {
  const auto& result = nb::cast<const EmbeddingResult&>(self);
  const size_t texts = result.dimensions == 0 ? 0 : result.vectors.size() / result.dimensions;
  const nb::ndarray<nb::numpy, const float, nb::ndim<2>> rows(result.vectors.data(), {texts, result.dimensions}, self);
  return nb::cast(rows);
}

}  // namespace

nb::object end_object(EmbeddingResult result) { return nb::cast(std::move(result)); }

void bind_results(nb::module_& module) {
  nb::enum_<ModelFormat>(module, "ModelFormat", "What a model's files can be.")
      .value("HUGGINGFACE", ModelFormat::HuggingFace)
      .value("ONNX", ModelFormat::ONNX)
      .value("TENSORRT", ModelFormat::TensorRT);

  using L = TokenLogprob;
  Fields<L>(module, "TokenLogprob", "How likely a token was.")
      .result("token", &L::token, "Its id.")
      .result("logprob", &L::logprob, "Natural log, of the distribution before temperature and filters.")
      .result("text", &L::text, "Of the token alone; may hold U+FFFD.")
      .result("top", &L::top, "The most likely tokens and their logprobs, best first; as many as asked for.")
      .finish(false);

  using Sample = GenerationSample;
  Fields<Sample>(module, "GenerationSample", "One of the samples of a generation.")
      .result("text", &Sample::text, "Without stop strings and end-of-sequence tokens.")
      .result("tokens", &Sample::tokens, "Ids of the generated tokens.")
      .result("finish_reason", &Sample::finish_reason, "\"stop\" or \"length\".")
      .result("logprobs", &Sample::logprobs, "One for each token, with SamplingParams.logprobs.")
      .finish(false);

  using R = GenerationResult;
  auto& result =
      Fields<R>(module, "GenerationResult", "What a finished generation gives back; str() is the first sample's text.")
          .result("model", &R::model, "That answered.")
          .result("samples", &R::samples, "SamplingParams.n of them.")
          .result("prompt_tokens", &R::prompt_tokens, "Tokens of the prompt.")
          .result("cached_tokens", &R::cached_tokens, "Of the prompt, found in the prefix cache.")
          .result("completion_tokens", &R::completion_tokens, "Generated tokens over all samples.")
          .result("draft_tokens", &R::draft_tokens, "Guessed by speculative decoding.")
          .result("accepted_tokens", &R::accepted_tokens, "Of the guessed ones, those that were right.")
          .result("from_cache", &R::from_cache, "Nothing was computed: the model's cache of answers had it.")
          .result("time_to_first_token", &R::time_to_first_token, "Seconds since submission; 0: there is none.")
          .result("total_time", &R::total_time, "Seconds since submission.")
          .result("prompt_logprobs", &R::prompt_logprobs,
                  "Of every token of the prompt but the first, with SamplingParams.prompt_logprobs.")
          .carried("prompt_rows", &rows_as_bytes, &set_rows)
          .finish(false);
  const auto text = [](const R& self) { return self.samples.empty() ? std::string() : self.samples.front().text; };
  result.def_prop_ro("text", text, "The first sample's text.");
  result.def("__str__", text);
  result.def_prop_ro("prompt_rows", &prompt_rows,
                     "float32 [prompt tokens, width], read-only, with SamplingParams.prompt_rows; else None. It is the "
                     "result's own memory, not a copy. Needs numpy.");

  nb::class_<EmbeddingResult>(module, "Embeddings")
      .def_ro("model", &EmbeddingResult::model)
      .def_ro("prompt_tokens", &EmbeddingResult::prompt_tokens)
      .def_prop_ro("vectors", &vectors);

  using I = ModelInfo;
  Fields<I>(module, "ModelInfo", "One registered version of a model, as it is at this moment.")
      .result("id", &I::id, "name:version.")
      .result("name", &I::name, "The name without the version.")
      .result("version", &I::version, "The version.")
      .result("path", &I::path, "Directory or hub id.")
      .result("format", &I::format, "As registered, or as found when it was loaded.")
      .result("state", &I::state, "\"unloaded\", \"loading\", \"ready\", \"draining\", \"sleeping\" or \"failed\".")
      .result("failure", &I::failure, "With \"failed\": why; with \"sleeping\": why it could not be woken.")
      .result("active", &I::active, "Whether its bare name means this version.")
      .result("pinned", &I::pinned, "Nothing takes its place in memory.")
      .result("aliases", &I::aliases, "Further names.")
      .result("leases", &I::leases, "How many hold it in memory now.")
      .result("memory_bytes", &I::memory_bytes, "Bytes in the ledger: weights, KV blocks, workspace.")
      .result("sleep_bytes", &I::sleep_bytes, "Bytes of the host's memory, while it sleeps.")
      .result("load_count", &I::load_count, "Loads since it was registered.")
      .result("load_seconds", &I::load_seconds, "Seconds of its last load; 0: not loaded since the start.")
      .result("last_used", &I::last_used, "Seconds since 1970; 0: never.")
      .finish(false);
}

double shortest(float value) {
  const std::string text = fmt::format("{}", value);
  double number = value;  // what from_chars leaves for infinities and NaN
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace inferneo::python
