// Requests whose events go to a queue.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "event_queue.h"
#include "inferneo/embedding.h"
#include "inferneo/generation.h"
#include "inferneo/sampling_params.h"
#include "owned.h"

namespace inferneo::python {

// The field that a constraint was given as.
inline std::string_view constraint_field(GrammarSpec::Kind kind) {
  switch (kind) {
    case GrammarSpec::Kind::json_object:
      return "json_object";
    case GrammarSpec::Kind::json_schema:
      return "json_schema";
    case GrammarSpec::Kind::regex:
      return "regex";
    case GrammarSpec::Kind::choice:
      return "choices";
    default:
      return "grammar";
  }
}

// An error about a constraint names the field that the caller has written.
inline Error as_written(Error error, GrammarSpec::Kind kind) {
  constexpr std::string_view kField = "grammar";
  if (error.param != kField) return error;
  error.param = constraint_field(kind);
  if (error.message.starts_with("grammar: ")) error.message.replace(0, kField.size(), error.param);
  return error;
}

inline GenerationCallbacks callbacks_to(const PyEventQueue& to, uint64_t id, bool stream,
                                        const SamplingParams& sampling) {
  GenerationCallbacks callbacks;
  if (stream) {
    callbacks.on_text = [queue = to.queue, id](int sample, std::string_view text) {
      queue->push({id, TextPiece{sample, std::string(text)}});
    };
  }
  callbacks.on_done = [queue = to.queue, id, kind = sampling.grammar.kind](Result<GenerationResult> result) {
    if (!result.ok()) result = as_written(std::move(result).error(), kind);
    queue->push({id, std::move(result)});
  };
  return callbacks;
}

inline EmbeddingCallback callback_to(const PyEventQueue& to, uint64_t id) {
  return [queue = to.queue, id](Result<EmbeddingResult> result) { queue->push({id, std::move(result)}); };
}

// `pooling`: empty for automatic, "mean" or "last", as Python has checked.
inline EmbeddingOptions embedding_options(std::string_view pooling, std::optional<bool> normalize) {
  EmbeddingOptions options{.normalize = normalize};
  if (!pooling.empty()) options.pooling = pooling == "last" ? EmbeddingPooling::last : EmbeddingPooling::mean;
  return options;
}

// A ticket does nothing in a forked child: its request is the parent's.
struct PyTicket {
  GenerationTicket ticket;
  pid_t owner = this_process();

  void cancel() const {
    if (this_process() == owner) ticket.cancel();
  }
};

}  // namespace inferneo::python
