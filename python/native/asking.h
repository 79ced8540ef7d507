// generate() in one native call: of a coroutine from what the caller has written to a request under way and the Answer
// that it awaits, of generate_sync() to the end. A request is made, and its end taken, after the model's steps have had
// the processor's caches, and the same done by a dozen Python functions then costs several times what it does when it
// is warm.
//
// Only what is plain is done here, and of coroutines only those of the process's one event loop: both give None for
// everything else, and the package goes its longer way (inferneo/core/_generation.py), which is also the one that says
// what is wrong.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "answer.h"
#include "data.h"
#include "event_queue.h"
#include "submission.h"

namespace inferneo::python {

// The one event loop that asks, as long as there is but one: its queue and its dict of waiters (inferneo/_bridge.py).
// It is held while the loop runs.
struct LoopEvents {
  nanobind::handle loop;
  PyEventQueue& queue;
  nanobind::handle waiters;
};

// Of the loop that runs on this thread; nullopt: none does, or it is not that one.
std::optional<LoopEvents> running_loop_events();

// The UTF-8 of a str; nullopt: it is none, or half a surrogate pair.
std::optional<std::string> plain_text(nanobind::handle value);

// submit(queue, id, prompt, sampling) -> PyTicket. On the loop's thread. Throws nanobind::python_error where the engine
// takes no request at all.
template <typename Submit>
nanobind::object begin(nanobind::handle prompt, nanobind::handle sampling, const nanobind::dict& fields,
                       Submit&& submit) {
  const std::optional<LoopEvents> here = running_loop_events();
  std::optional<std::string> text = here ? plain_text(prompt) : std::nullopt;
  const std::optional<SamplingParams> chosen = text ? plain_sampling(sampling, fields) : std::nullopt;
  if (!chosen) return nanobind::none();
  const uint64_t id = here->queue.new_id();
  const nanobind::object request = nanobind::cast(id);
  nanobind::object answer = make_answer(here->loop, here->waiters, request);
  if (PyDict_SetItem(here->waiters.ptr(), request.ptr(), answer.ptr()) != 0) nanobind::raise_python_error();
  try {
    set_ticket(answer, std::forward<Submit>(submit)(here->queue, id, *std::move(text), *chosen));
  } catch (...) {
    if (PyDict_DelItem(here->waiters.ptr(), request.ptr()) != 0) PyErr_Clear();
    throw;
  }
  return answer;
}

// As begin(), for a thread without a loop: waits for the end. Throws nanobind::python_error with the request's error,
// or with what a signal's handler raises, and then the request is cancelled.
template <typename Submit>
nanobind::object wait_for(nanobind::handle prompt, nanobind::handle sampling, const nanobind::dict& fields,
                          Submit&& submit) {
  std::optional<std::string> text = plain_text(prompt);
  const std::optional<SamplingParams> chosen = text ? plain_sampling(sampling, fields) : std::nullopt;
  if (!chosen) return nanobind::none();
  const PyEventQueue queue;
  const PyTicket ticket = std::forward<Submit>(submit)(queue, 0, *std::move(text), *chosen);
  try {
    return wait_for_end(queue);
  } catch (...) {
    ticket.cancel();
    throw;
  }
}

void bind_asking(nanobind::module_& module);

}  // namespace inferneo::python
