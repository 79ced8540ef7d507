#include "answer.h"

#include <structmember.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

namespace nb = nanobind;

namespace inferneo::python {
namespace {

enum class State : char { waiting, result, error, cancelled };

// A plain C type: its members are found without a call, and none of what runs here is Python.
struct Answer {
  PyObject_HEAD;
  char blocking;  // _asyncio_future_blocking: tells the task that it was awaited, and not yielded by mistake
  State state;
  PyObject* loop;
  PyObject* waiters;
  PyObject* request;
  PyObject* ticket;                    // until the end; null: not submitted yet; None: what cannot be cancelled
  PyObject* wake;                      // the task's, once it waits
  PyObject* context;                   // in which it wants to be called
  PyObject* value;                     // the result, the exception, or the message of a cancellation
  std::optional<PyTicket> own_ticket;  // instead of `ticket`: of an engine of this process
};

PyTypeObject* g_answer_type = nullptr;  // for the process: the module is never unloaded

Answer* self_of(PyObject* object) { return reinterpret_cast<Answer*>(object); }

nb::object steal(PyObject*& member) { return nb::steal(std::exchange(member, nullptr)); }

int traverse(PyObject* object, visitproc visit, void* arg) {
  Answer* self = self_of(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->loop);
  Py_VISIT(self->waiters);
  Py_VISIT(self->request);
  Py_VISIT(self->ticket);
  Py_VISIT(self->wake);
  Py_VISIT(self->context);
  Py_VISIT(self->value);
  return 0;
}

int clear(PyObject* object) {
  Answer* self = self_of(object);
  Py_CLEAR(self->loop);
  Py_CLEAR(self->waiters);
  Py_CLEAR(self->request);
  Py_CLEAR(self->ticket);
  Py_CLEAR(self->wake);
  Py_CLEAR(self->context);
  Py_CLEAR(self->value);
  return 0;
}

void dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  std::destroy_at(&self_of(object)->own_ticket);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* make_of(PyTypeObject* type, PyObject* loop, PyObject* waiters, PyObject* request) {
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  Answer* self = self_of(object);
  self->loop = Py_NewRef(loop);
  self->waiters = Py_NewRef(waiters);
  self->request = Py_NewRef(request);
  new (&self->own_ticket) std::optional<PyTicket>();
  return object;
}

PyObject* make(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  PyObject *loop = nullptr, *waiters = nullptr, *request = nullptr;
  static const char* const kNames[] = {"loop", "waiters", "request", nullptr};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!O!", const_cast<char**>(kNames), &loop, &PyDict_Type, &waiters,
                                   &PyLong_Type, &request)) {
    return nullptr;
  }
  return make_of(type, loop, waiters, request);
}

// Nobody waits for the end any more. Whatever the ticket makes of it, the task that leaves goes on.
void drop(Answer* self) {
  if (PyDict_DelItem(self->waiters, self->request) != 0) PyErr_Clear();  // it has been taken out already
  if (const auto own = std::exchange(self->own_ticket, std::nullopt)) own->cancel();
  const nb::object ticket = steal(self->ticket);
  if (!ticket.is_valid() || ticket.is_none()) return;
  if (!nb::steal(PyObject_CallMethod(ticket.ptr(), "cancel", nullptr)).is_valid()) PyErr_WriteUnraisable(ticket.ptr());
}

void raise_cancelled(const Answer* self) {
  const nb::object asyncio = nb::steal(PyImport_ImportModule("asyncio"));
  if (!asyncio.is_valid()) return;
  const nb::object kind = nb::steal(PyObject_GetAttrString(asyncio.ptr(), "CancelledError"));
  if (!kind.is_valid()) return;
  if (self->value == nullptr) return PyErr_SetNone(kind.ptr());
  PyErr_SetObject(kind.ptr(), self->value);
}

// StopIteration(value) as an object: a tuple or an exception as its value would be taken apart otherwise.
void raise_value(PyObject* value) {
  const nb::object stop = nb::steal(PyObject_CallOneArg(PyExc_StopIteration, value));
  if (stop.is_valid()) PyErr_SetObject(PyExc_StopIteration, stop.ptr());
}

PyObject* next(PyObject* object) {
  Answer* self = self_of(object);
  switch (self->state) {
    case State::waiting:
      if (self->wake != nullptr || self->blocking != 0) {
        PyErr_SetString(PyExc_RuntimeError, "a request's end is awaited once, by a task of its own event loop");
        return nullptr;
      }
      self->blocking = 1;
      return Py_NewRef(object);
    case State::result:
      raise_value(self->value);
      return nullptr;
    case State::error:
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(self->value)), self->value);
      return nullptr;
    case State::cancelled:
      raise_cancelled(self);
      return nullptr;
  }
  return nullptr;
}

// What `await` asks first (am_send of Python 3.10): a result without an exception around it.
PySendResult send(PyObject* object, PyObject* /*sent*/, PyObject** given) {
  Answer* self = self_of(object);
  if (self->state == State::result) {
    *given = Py_NewRef(self->value);
    return PYGEN_RETURN;
  }
  *given = next(object);
  return *given == nullptr ? PYGEN_ERROR : PYGEN_NEXT;
}

PyObject* self_again(PyObject* object) { return Py_NewRef(object); }

PyObject* get_loop(PyObject* object, PyObject* /*unused*/) { return Py_NewRef(self_of(object)->loop); }

PyObject* add_done_callback(PyObject* object, PyObject* args, PyObject* kwargs) {
  static const char* const kNames[] = {"", "context", nullptr};
  PyObject *wake = nullptr, *context = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O", const_cast<char**>(kNames), &wake, &context)) return nullptr;
  Answer* self = self_of(object);
  if (self->wake != nullptr || self->state != State::waiting) {
    PyErr_SetString(PyExc_RuntimeError, "a request's end is awaited once, before it has come");
    return nullptr;
  }
  self->wake = Py_NewRef(wake);
  self->context = context == nullptr || context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
  if (self->context == nullptr) return nullptr;
  Py_RETURN_NONE;
}

// The task that waits is woken in the loop's next round, as by a future: the one that cancels it is running.
PyObject* cancel(PyObject* object, PyObject* args, PyObject* kwargs) {
  static const char* const kNames[] = {"msg", nullptr};
  PyObject* message = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", const_cast<char**>(kNames), &message)) return nullptr;
  Answer* self = self_of(object);
  if (self->state != State::waiting) Py_RETURN_FALSE;
  self->state = State::cancelled;
  if (message != nullptr && message != Py_None) self->value = Py_NewRef(message);
  drop(self);
  const nb::object wake = steal(self->wake);
  const nb::object context = steal(self->context);
  if (!wake.is_valid()) Py_RETURN_TRUE;
  try {
    nb::handle(self->loop).attr("call_soon")(wake, nb::handle(object), nb::arg("context") = context);
  } catch (nb::python_error& error) {
    error.restore();
    return nullptr;
  }
  Py_RETURN_TRUE;
}

PyObject* done(PyObject* object, PyObject* /*unused*/) {
  return PyBool_FromLong(self_of(object)->state != State::waiting);
}

// For the task's wake-up: what came of it is told by the iterator.
PyObject* result(PyObject* object, PyObject* /*unused*/) {
  if (self_of(object)->state == State::cancelled) {
    raise_cancelled(self_of(object));
    return nullptr;
  }
  Py_RETURN_NONE;
}

// The coroutine is closed, or something is raised where it waits.
void leave(Answer* self) {
  if (self->state != State::waiting) return;
  self->state = State::cancelled;
  drop(self);
}

PyObject* close(PyObject* object, PyObject* /*unused*/) {
  leave(self_of(object));
  Py_RETURN_NONE;
}

// throw(exception), or the older throw(type, value, traceback).
PyObject* throw_in(PyObject* object, PyObject* args) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  if (!PyArg_ParseTuple(args, "O|OO", &type, &value, &traceback)) return nullptr;
  leave(self_of(object));
  if (PyExceptionInstance_Check(type)) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(type)), type);
  } else if (PyExceptionClass_Check(type)) {
    PyErr_SetObject(type, value);
  } else {
    PyErr_SetString(PyExc_TypeError, "throw(): expected an exception");
  }
  return nullptr;
}

void give(nb::handle answer, State state, nb::object value) {
  Answer* self = self_of(answer.ptr());
  if (self->state != State::waiting) return;
  self->state = state;
  Py_XSETREF(self->value, value.release().ptr());
  self->own_ticket.reset();
  const nb::object ticket = steal(self->ticket);
  const nb::object wake = steal(self->wake);
  const nb::object context = steal(self->context);
  if (!wake.is_valid()) return;
  if (PyContext_Enter(context.ptr()) != 0) nb::raise_python_error();
  const nb::object returned = nb::steal(PyObject_CallOneArg(wake.ptr(), answer.ptr()));
  PyObject *type = nullptr, *error = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &error, &traceback);
  (void)PyContext_Exit(context.ptr());
  PyErr_Restore(type, error, traceback);
  if (!returned.is_valid()) nb::raise_python_error();
}

template <typename Function>
PyCFunction as_method(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef g_methods[] = {{"get_loop", get_loop, METH_NOARGS, nullptr},
                           {"add_done_callback", as_method(add_done_callback), METH_VARARGS | METH_KEYWORDS, nullptr},
                           {"cancel", as_method(cancel), METH_VARARGS | METH_KEYWORDS, nullptr},
                           {"done", done, METH_NOARGS, nullptr},
                           {"result", result, METH_NOARGS, nullptr},
                           {"close", close, METH_NOARGS, nullptr},
                           {"throw", throw_in, METH_VARARGS, nullptr},
                           {}};

PyMemberDef g_members[] = {{"_asyncio_future_blocking", T_BOOL, offsetof(Answer, blocking), 0, nullptr},
                           {"ticket", T_OBJECT, offsetof(Answer, ticket), 0, nullptr},
                           {}};

template <typename Function>
PyType_Slot slot(int id, Function* function) {
  return {id, reinterpret_cast<void*>(function)};
}

}  // namespace

bool is_answer(nb::handle object) { return Py_TYPE(object.ptr()) == g_answer_type; }

nb::object make_answer(nb::handle loop, nb::handle waiters, nb::handle request) {
  nb::object answer = nb::steal(make_of(g_answer_type, loop.ptr(), waiters.ptr(), request.ptr()));
  if (!answer.is_valid()) nb::raise_python_error();
  return answer;
}

void set_ticket(nb::handle answer, PyTicket ticket) { self_of(answer.ptr())->own_ticket = std::move(ticket); }

void give_result(nb::handle answer, nb::object result) { give(answer, State::result, std::move(result)); }

void give_error(nb::handle answer, nb::object exception) { give(answer, State::error, std::move(exception)); }

void bind_answer(nb::module_& module) {
  PyType_Slot slots[] = {slot(Py_tp_new, make),
                         slot(Py_tp_dealloc, dealloc),
                         slot(Py_tp_traverse, traverse),
                         slot(Py_tp_clear, clear),
                         slot(Py_tp_iter, self_again),
                         slot(Py_tp_iternext, next),
                         slot(Py_am_await, self_again),
                         slot(Py_am_send, send),
                         {Py_tp_methods, g_methods},
                         {Py_tp_members, g_members},
                         {0, nullptr}};
  PyType_Spec spec{"inferneo._native.Answer", sizeof(Answer), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  nb::object type = nb::steal(PyType_FromSpec(&spec));
  if (!type.is_valid()) nb::raise_python_error();
  g_answer_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  module.attr("Answer") = std::move(type);
}

}  // namespace inferneo::python
