#include "asking.h"

#include <memory>

namespace nb = nanobind;

namespace inferneo::python {
namespace {

struct OnlyLoop {
  nb::object loop;    // a weak reference
  nb::object events;  // _LoopEvents of inferneo/_bridge.py, and two of its attributes:
  nb::object queue;
  nb::dict waiters;
};

// Raw, as the module is never unloaded: nothing of Python's may be released after the interpreter's end.
OnlyLoop* g_only = nullptr;  // null: there is no loop, or there are several
PyObject* g_get_running_loop = nullptr;

void forget_only_loop() { const std::unique_ptr<OnlyLoop> forgotten(std::exchange(g_only, nullptr)); }

void set_only_loop(nb::handle loop, nb::handle events) {
  nb::object weak = nb::steal(PyWeakref_NewRef(loop.ptr(), nullptr));
  if (!weak.is_valid()) nb::raise_python_error();
  auto only = std::make_unique<OnlyLoop>(OnlyLoop{.loop = std::move(weak),
                                                  .events = nb::borrow(events),
                                                  .queue = events.attr("queue"),
                                                  .waiters = nb::cast<nb::dict>(events.attr("waiters"))});
  (void)nb::cast<PyEventQueue&>(only->queue);  // raises for what is none
  forget_only_loop();
  g_only = only.release();
}

bool is_only_loop(nb::handle loop) { return g_only != nullptr && g_only->loop().is(loop); }

nb::object only_loop_events(nb::handle loop) { return is_only_loop(loop) ? g_only->events : nb::none(); }

}  // namespace

std::optional<LoopEvents> running_loop_events() {
  if (g_only == nullptr) return std::nullopt;
  const nb::object loop = nb::steal(PyObject_CallNoArgs(g_get_running_loop));
  if (!loop.is_valid()) {
    PyErr_Clear();
    return std::nullopt;
  }
  if (!is_only_loop(loop)) return std::nullopt;
  return LoopEvents{loop, *nb::inst_ptr<PyEventQueue>(g_only->queue), g_only->waiters};
}

std::optional<std::string> plain_text(nb::handle value) {
  if (!PyUnicode_Check(value.ptr())) return std::nullopt;
  Py_ssize_t size = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (text == nullptr) {
    PyErr_Clear();
    return std::nullopt;
  }
  return std::string(text, static_cast<size_t>(size));
}

void bind_asking(nb::module_& module) {
  g_get_running_loop = nb::object(nb::module_::import_("asyncio").attr("get_running_loop")).release().ptr();
  module.def("set_only_loop", &set_only_loop);
  module.def("forget_only_loop", &forget_only_loop);
  module.def("only_loop_events", &only_loop_events);
}

}  // namespace inferneo::python
