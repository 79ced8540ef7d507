#include "event_queue.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>
#include <cstring>

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
  if (auto* result = std::get_if<Result<EmbeddingResult>>(&event.what)) return end_tuple(event.id, std::move(*result));
  return end_tuple(event.id, std::move(std::get<Result<Lease>>(event.what)));
}

nb::list list_of(std::deque<Event> events) {
  nb::list list;
  for (Event& event : events) list.append(tuple_of(std::move(event)));
  return list;
}

// In slices, so that Ctrl-C is noticed.
nb::list take(const PyEventQueue& self, double timeout) {
  if (::getpid() != self.owner) raise(forked_error());
  using Seconds = std::chrono::duration<double>;
  constexpr Seconds kSlice{0.1};
  std::deque<Event> events;
  for (Seconds left{timeout}; events.empty() && left.count() > 0; left -= kSlice) {
    events = without_gil([&] { return self.queue->take(std::min(left, kSlice)); });
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
  return list_of(std::move(events));
}

// A forked child's copy of its parent's loop finds nothing here, and leaves the descriptor that both have alone.
nb::list take_now(const PyEventQueue& self) {
  return ::getpid() == self.owner ? list_of(self.queue->take_now()) : nb::list();
}

// ---- what a server elsewhere has told (inferneo/_remote.py), as if an engine of this process had

ErrorCode code_named(std::string_view name) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    if (error_info(static_cast<ErrorCode>(code)).name == name) return static_cast<ErrorCode>(code);
  }
  return ErrorCode::internal;
}

void put(const PyEventQueue& self, Event event) {
  if (::getpid() == self.owner) self.queue->push(std::move(event));
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
  if (::getpid() == owner) return;
  // Its mutex may be locked for ever.
  new std::shared_ptr<EventQueue>(std::move(queue));  // NOLINT: never freed, on purpose
}

void bind_event_queue(nb::module_& module) {
  nb::class_<PyEventQueue>(module, "EventQueue")
      .def(nb::init<>())
      .def("take", &take, nb::arg("timeout"))
      .def("take_now", &take_now)
      .def("fileno", [](const PyEventQueue& self) { return self.queue->descriptor(); })
      .def("put_text", &put_text)
      .def("put_error", &put_error)
      .def("put_result", &put_result)
      .def("put_embedding", &put_embedding);
}

}  // namespace inferneo::python
