// Engines, managers and leases as Python holds them.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>

#include "inferneo/model_manager.h"
#include "inferneo/result.h"
#include "owned.h"

namespace inferneo::python {

using PyLease = Owned<Lease>;

// What the end of a request is for Python.
inline nanobind::object end_object(GenerationResult result) { return nanobind::cast(std::move(result)); }
nanobind::object end_object(EmbeddingResult result);
nanobind::object end_object(Lease lease);

void bind_engines(nanobind::module_& module);
void bind_manager(nanobind::module_& module);

}  // namespace inferneo::python
