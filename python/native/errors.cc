#include "errors.h"

#include <nanobind/stl/string.h>

#include <string>

namespace nb = nanobind;

namespace inferneo::python {

nb::object exception_of(const Error& error) {
  const nb::object make = nb::module_::import_("inferneo.errors").attr("from_code");
  return make(std::string(error_info(error.code).name), error.message, error.param, error.retry_after);
}

void raise(const Error& error) {
  const nb::object exception = exception_of(error);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw nb::python_error();
}

void bind_errors(nb::module_& module) {
  module.def(
      "error_codes",
      [] {
        nb::list names;
        for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
          names.append(std::string(error_info(static_cast<ErrorCode>(code)).name));
        }
        return names;
      },
      "The name of every error code of the engine.");
}

}  // namespace inferneo::python
