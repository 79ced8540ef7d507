#include "event_queue.h"

#include <algorithm>

#include "engines.h"
#include "errors.h"
#include "owned.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

// (id, sample, text), (id, -1, result) or (id, -2, exception).
constexpr int kResult = -1;
constexpr int kError = -2;

template <typename T>
nb::tuple end_tuple(uint64_t id, Result<T> result) {
  if (!result.ok()) return nb::make_tuple(id, kError, exception_of(result.error()));
  return nb::make_tuple(id, kResult, end_object(*std::move(result)));
}

nb::tuple tuple_of(Event event) {
  if (auto* piece = std::get_if<TextPiece>(&event.what)) {
    return nb::make_tuple(event.id, piece->sample, std::move(piece->text));
  }
  if (auto* result = std::get_if<Result<GenerationResult>>(&event.what)) return end_tuple(event.id, std::move(*result));
  return end_tuple(event.id, std::move(std::get<Result<Lease>>(event.what)));
}

// Interruptible: in slices, so that Ctrl-C is noticed.
nb::list take(const PyEventQueue& self, double timeout, bool interruptible) {
  if (::getpid() != self.owner) raise(forked_error());
  using Seconds = std::chrono::duration<double>;
  const Seconds slice{interruptible ? 0.1 : timeout};
  std::deque<Event> events;
  for (Seconds left{timeout}; events.empty() && left.count() > 0; left -= slice) {
    events = without_gil([&] { return self.queue->take(std::min(left, slice)); });
    if (interruptible && PyErr_CheckSignals() != 0) throw nb::python_error();
    if (self.queue->closed()) break;
  }
  nb::list list;
  for (Event& event : events) list.append(tuple_of(std::move(event)));
  return list;
}

}  // namespace

PyEventQueue::~PyEventQueue() {
  if (::getpid() == owner) return;
  // Its mutex may be locked for ever.
  new std::shared_ptr<EventQueue>(std::move(queue));  // NOLINT: never freed, on purpose
}

void bind_event_queue(nb::module_& module) {
  nb::class_<PyEventQueue>(module, "EventQueue")
      .def(nb::init<>())
      .def("take", &take, nb::arg("timeout"), nb::arg("interruptible") = true)
      .def("close", [](const PyEventQueue& self) {
        if (::getpid() == self.owner) self.queue->close();
      });
}

}  // namespace inferneo::python
