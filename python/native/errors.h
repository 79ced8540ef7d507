// Errors of the engine as Python exceptions: one class for each code, which inferneo/errors.py declares.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "base/result.h"

namespace inferneo::python {

// The exception, not raised. Needs the GIL.
nanobind::object exception_of(const Error& error);
[[noreturn]] void raise(const Error& error);

inline void check(const Status& status) {
  if (!status.ok()) raise(status.error());
}
template <typename T>
T value_of(Result<T> result) {
  if (!result.ok()) raise(result.error());
  return *std::move(result);
}

void bind_errors(nanobind::module_& module);

}  // namespace inferneo::python
