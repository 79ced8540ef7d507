#include "event_queue.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "answer.h"
#include "engines.h"
#include "errors.h"
#include "owned.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

// The kinds of events: the number of the sample whose text it is, or one of these.
constexpr int kResult = -1;
constexpr int kError = -2;

template <typename T>
std::pair<int, nb::object> end_of(Result<T> result) {
  if (!result.ok()) return {kError, exception_of(result.error())};
  return {kResult, end_object(*std::move(result))};
}

bool is_end(const Event& event) { return !std::holds_alternative<TextPiece>(event.what); }

// What it tells, and of which kind that is.
std::pair<int, nb::object> told_by(Event event) {
  if (auto* piece = std::get_if<TextPiece>(&event.what)) return {piece->sample, nb::cast(std::move(piece->text))};
  if (auto* result = std::get_if<Result<GenerationResult>>(&event.what)) return end_of(std::move(*result));
  if (auto* result = std::get_if<Result<EmbeddingResult>>(&event.what)) return end_of(std::move(*result));
  return end_of(std::move(std::get<Result<Lease>>(event.what)));
}

// Guarded by the GIL.
int g_waits = 0;
bool g_waits_closed = false;

// A thread that waits here. One that came back to Python after the interpreter's end would take the process down: none
// begins once that is near, and those that are here are waited for (inferneo/_bridge.py).
class Wait {
 public:
  Wait() {
    if (g_waits_closed) {
      PyErr_SetString(PyExc_RuntimeError, "the interpreter is shutting down");
      throw nb::python_error();
    }
    ++g_waits;
  }
  ~Wait() { --g_waits; }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;
};

void reset_waits() {
  g_waits = 0;
  g_waits_closed = false;
}

// In slices, so that Ctrl-C is noticed.
nb::list take(const PyEventQueue& self, double timeout) {
  if (this_process() != self.owner) raise(forked_error());
  const Wait wait;
  using Seconds = std::chrono::duration<double>;
  constexpr Seconds kSlice{0.1};
  std::deque<Event> events;
  for (Seconds left{timeout}; events.empty() && left.count() > 0; left -= kSlice) {
    events = without_gil([&] { return self.queue->take(std::min(left, kSlice)); });
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
  nb::list list;
  for (Event& event : events) {
    const uint64_t id = event.id;
    auto [kind, value] = told_by(std::move(event));
    list.append(nb::make_tuple(id, kind, value));
  }
  return list;
}

}  // namespace

// In slices, so that Ctrl-C is noticed.
nb::object wait_for_end(const PyEventQueue& queue) {
  const Wait wait;
  constexpr std::chrono::duration<double> kSlice{0.1};
  std::deque<Event> events;
  while (events.empty()) {
    events = without_gil([&] { return queue.queue->take(kSlice); });
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
  auto [kind, value] = told_by(std::move(events.front()));
  if (kind != kError) return value;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())), value.ptr());
  throw nb::python_error();
}

namespace {

// To whom the event is for, if anybody still waits. A waiter is an Answer, or has on_event(kind, value).
void deliver_to(const nb::dict& waiters, Event event) {
  const nb::object id = nb::cast(event.id);
  const nb::object waiter = nb::borrow(PyDict_GetItemWithError(waiters.ptr(), id.ptr()));
  if (!waiter.is_valid()) {
    if (PyErr_Occurred() != nullptr) nb::raise_python_error();
    return;
  }
  if (is_end(event) && PyDict_DelItem(waiters.ptr(), id.ptr()) != 0) nb::raise_python_error();
  int kind = 0;
  nb::object value;
  try {
    std::tie(kind, value) = told_by(std::move(event));
  } catch (nb::python_error& error) {  // no memory for the result
    std::tie(kind, value) = std::pair(kError, nb::borrow(error.value()));
  }
  if (!is_answer(waiter)) {
    waiter.attr("on_event")(kind, value);
  } else if (kind == kError) {
    give_error(waiter, std::move(value));
  } else {
    give_result(waiter, std::move(value));
  }
}

// A callback of an event loop: all that there are, and those that come meanwhile, which spares the loop a round; but no
// more than one for each that waits or is there now, so that the loop's other callbacks get their turn. The rest of
// them is still in the queue while who waited for one goes on: Ctrl-C there, or a loop within the loop, loses none. A
// forked child's copy of its parent's loop finds nothing here, and leaves the descriptor that both have alone.
void deliver(const PyEventQueue& self, const nb::dict& waiters) {
  if (this_process() != self.owner) return;
  for (size_t left = std::max(self.queue->size(), waiters.size()); left > 0; --left) {
    std::optional<Event> event = self.queue->take_one();
    if (!event) break;
    try {
      deliver_to(waiters, *std::move(event));
    } catch (nb::python_error& error) {
      if (!error.matches(PyExc_Exception)) throw;
      error.discard_as_unraisable("an event of the engine");  // whatever it was, others still wait for theirs
    }
  }
  self.queue->settle();  // after those who waited went on: it takes a system call that they need not wait for
}

// ---- what a server elsewhere has told (inferneo/_remote.py), as if an engine of this process had

ErrorCode code_named(std::string_view name) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    if (error_info(static_cast<ErrorCode>(code)).name == name) return static_cast<ErrorCode>(code);
  }
  return ErrorCode::internal;
}

void put(const PyEventQueue& self, Event event) {
  if (this_process() == self.owner) self.queue->push(std::move(event));
}

void put_text(const PyEventQueue& self, uint64_t id, int sample, std::string text) {
  put(self, {id, TextPiece{sample, std::move(text)}});
}

void put_error(const PyEventQueue& self, uint64_t id, const std::string& code, std::string message, std::string param,
               int retry_after) {
  Error error = make_error(code_named(code), std::move(message), std::move(param));
  error.retry_after = retry_after;
  put(self, {id, Result<GenerationResult>(std::move(error))});
}

// samples: (text, finish_reason) of each.
void put_result(const PyEventQueue& self, uint64_t id, std::string model,
                const std::vector<std::pair<std::string, std::string>>& samples, int32_t prompt_tokens,
                int32_t cached_tokens, int32_t completion_tokens, double time_to_first_token, double total_time) {
  GenerationResult result;
  result.model = std::move(model);
  for (const auto& [text, reason] : samples)
    result.samples.push_back({.text = text, .tokens = {}, .finish_reason = reason});
  result.prompt_tokens = prompt_tokens;
  result.cached_tokens = cached_tokens;
  result.completion_tokens = completion_tokens;
  result.time_to_first_token = time_to_first_token;
  result.total_time = total_time;
  put(self, {id, Result<GenerationResult>(std::move(result))});
}

// vectors: little-endian float32.
void put_embedding(const PyEventQueue& self, uint64_t id, std::string model, const nb::bytes& vectors,
                   size_t dimensions, int64_t prompt_tokens) {
  static_assert(std::endian::native == std::endian::little);
  EmbeddingResult result{
      .model = std::move(model), .vectors = {}, .dimensions = dimensions, .prompt_tokens = prompt_tokens};
  result.vectors.resize(vectors.size() / sizeof(float));
  std::memcpy(result.vectors.data(), vectors.data(), result.vectors.size() * sizeof(float));
  put(self, {id, Result<EmbeddingResult>(std::move(result))});
}

}  // namespace

PyEventQueue::~PyEventQueue() {
  if (this_process() == owner) return;
  // Its mutex may be locked for ever.
  new std::shared_ptr<EventQueue>(std::move(queue));  // NOLINT: never freed, on purpose
}

void bind_event_queue(nb::module_& module) {
  module.def("close_waits", [] { g_waits_closed = true; });
  module.def("num_waits", [] { return g_waits; });
  module.def("reset_waits", &reset_waits);
  nb::class_<PyEventQueue>(module, "EventQueue")
      .def(nb::init<>())
      .def("take", &take, nb::arg("timeout"))
      .def("deliver", &deliver)
      .def("new_id", &PyEventQueue::new_id)
      .def("fileno", [](const PyEventQueue& self) { return self.queue->descriptor(); })
      .def("put_text", &put_text)
      .def("put_error", &put_error)
      .def("put_result", &put_result)
      .def("put_embedding", &put_embedding);
}

}  // namespace inferneo::python
