// Requests whose events go to a queue.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>

#include "event_queue.h"
#include "inferneo/generation.h"

namespace inferneo::python {

inline GenerationCallbacks callbacks_to(const PyEventQueue& to, uint64_t id, bool stream) {
  GenerationCallbacks callbacks;
  if (stream) {
    callbacks.on_text = [queue = to.queue, id](int sample, std::string_view text) {
      queue->push({id, TextPiece{sample, std::string(text)}});
    };
  }
  callbacks.on_done = [queue = to.queue, id](Result<GenerationResult> result) { queue->push({id, std::move(result)}); };
  return callbacks;
}

// A ticket does nothing in a forked child: its request is the parent's.
struct PyTicket {
  GenerationTicket ticket;
  pid_t owner = ::getpid();

  void cancel() const {
    if (::getpid() == owner) ticket.cancel();
  }
};

}  // namespace inferneo::python
