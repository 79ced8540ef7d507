// The engine for programs that embed it: give it a configuration, start it, ask it.
//
//   inferneo::InferneoEngine engine({.model = {"models/inferneo-story"}});
//   if (auto status = engine.start(); !status.ok()) ...
//   auto result = engine.generate("Once upon a time").get();
//
// Thread-safe but for start(), stop() and the destructor, which one owner calls. Errors are values: generate() reports
// bad parameters, a full queue, an exceeded context and a stopped engine through the future.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"
#include "inferneo/embedding.h"
#include "inferneo/generation.h"
#include "inferneo/result.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

class InferneoEngine {
 public:
  explicit InferneoEngine(EngineConfig config);
  ~InferneoEngine();  // stop()
  InferneoEngine(const InferneoEngine&) = delete;
  InferneoEngine& operator=(const InferneoEngine&) = delete;

  // Validates the configuration and loads its models. `stop` gives that up from another thread: `cancelled` then.
  Status start(const std::stop_token& stop = {});
  // Running generations end with `unavailable`.
  void stop();

  // Fields of `sampling` are taken as they are; `model` empty means the first one configured.
  std::future<Result<GenerationResult>> generate(std::string prompt, SamplingParams sampling = {},
                                                 std::string model = {});
  // The same, with each piece of text as it comes (from an engine-owned thread; must not block).
  using TextCallback = std::function<void(int sample, std::string_view text)>;
  std::future<Result<GenerationResult>> generate_stream(std::string prompt, SamplingParams sampling,
                                                        TextCallback on_text, std::string model = {});
  // The same without a thread that waits: the end is told to callbacks.on_done, which must be set.
  GenerationTicket submit(std::string prompt, SamplingParams sampling, GenerationCallbacks callbacks,
                          std::string model = {});

  // Vectors of at least one text, all computed together. Errors: invalid_argument for an empty text and for a model of
  // another kind, context_too_long, unsupported where what runs the model gives no hidden states.
  std::future<Result<EmbeddingResult>> embed(std::vector<std::string> texts, EmbeddingOptions options = {},
                                             std::string model = {});
  GenerationTicket submit_embedding(std::vector<std::string> texts, EmbeddingOptions options, EmbeddingCallback on_done,
                                    std::string model = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
