// A generation under way, for programs that are told of its end instead of waiting for it.
//
//   auto ticket = engine.submit("Once upon a time", {}, {.on_done = [](inferneo::Result<...> result) { ... }});
//   ticket.cancel();
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "inferneo/result.h"

namespace inferneo {

// Called on threads of the engine (an error that is known at once: on the caller's), one call at a time for a
// generation. They must not block and must not throw.
struct GenerationCallbacks {
  std::function<void(int sample, std::string_view text)> on_text = {};  // each piece of text as it comes; may be empty
  std::function<void(Result<GenerationResult> result)> on_done = {};    // exactly once, errors included; the last call
};

// Copies name the same generation, or the same embedding; losing them all does not cancel it. Thread-safe; may outlive
// the engine.
class GenerationTicket {
 public:
  GenerationTicket() = default;  // of no generation
  void cancel() const;           // idempotent; on_done still comes, with `cancelled` or with what was there already

  struct Impl;
  explicit GenerationTicket(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace inferneo
