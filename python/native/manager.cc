#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>

#include "asking.h"
#include "config.h"
#include "data.h"
#include "engines.h"
#include "submission.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

using PyManager = Owned<ModelManager>;

std::chrono::seconds seconds(int64_t count) { return std::chrono::seconds(count); }

// Setting it up may read a registry and load models.
void make_manager(PyManager* self, int max_models, double max_memory_gb, bool enable_lazy_loading, std::string registry,
                  const Config& config) {
  auto manager = without_gil([&] {
    return std::make_unique<ModelManager>(ModelManager::Options{.max_models = max_models,
                                                                .max_memory_gb = max_memory_gb,
                                                                .enable_lazy_loading = enable_lazy_loading,
                                                                .registry = std::move(registry),
                                                                .engine = config.value});
  });
  if (const Status status = manager->status(); !status.ok()) {
    without_gil([&] { manager.reset(); });
    raise(status.error());
  }
  new (self) PyManager(std::move(manager));
}

template <typename... Arguments>
auto status_call(Status (ModelManager::*method)(Arguments...)) {
  return [method](PyManager& self, std::decay_t<Arguments>... arguments) {
    check(self.shared([&](ModelManager& manager) { return (manager.*method)(arguments...); }));
  };
}

void acquire(PyManager& self, const PyEventQueue& queue, uint64_t id, const std::string& name) {
  check(self.at_once([&](ModelManager& manager) {
    manager.acquire(name, [to = queue.queue, id](Result<Lease> lease) { to->push({id, std::move(lease)}); });
  }));
}

// What a server elsewhere says of one of its models (inferneo/_remote.py).
ModelInfo make_model_info(std::string id, std::string name, std::string version, std::string path,
                          std::optional<ModelFormat> format, std::string state, std::string failure, bool active,
                          bool pinned, std::vector<std::string> aliases, int32_t leases, uint64_t memory_bytes,
                          uint64_t sleep_bytes, uint64_t load_count, double load_seconds, int64_t last_used) {
  return {.id = std::move(id),
          .name = std::move(name),
          .version = std::move(version),
          .path = std::move(path),
          .format = format,
          .state = std::move(state),
          .failure = std::move(failure),
          .active = active,
          .pinned = pinned,
          .aliases = std::move(aliases),
          .leases = leases,
          .memory_bytes = memory_bytes,
          .sleep_bytes = sleep_bytes,
          .load_count = load_count,
          .load_seconds = load_seconds,
          .last_used = last_used};
}

PyTicket submit(PyLease& self, const PyEventQueue& queue, uint64_t id, std::string prompt,
                const SamplingParams& sampling, bool stream) {
  PyTicket ticket;
  check(self.at_once([&](Lease& lease) {
    ticket.ticket = lease.submit(std::move(prompt), sampling, callbacks_to(queue, id, stream, sampling));
  }));
  return ticket;
}

// What begin() and wait_for() submit (asking.h).
auto submission(PyLease& self) {
  return [&](const PyEventQueue& queue, uint64_t id, std::string text, const SamplingParams& chosen) {
    return submit(self, queue, id, std::move(text), chosen, false);
  };
}

nb::object begin_generation(PyLease& self, nb::handle prompt, nb::handle sampling, const nb::dict& fields) {
  return begin(prompt, sampling, fields, submission(self));
}

nb::object wait_for_generation(PyLease& self, nb::handle prompt, nb::handle sampling, const nb::dict& fields) {
  return wait_for(prompt, sampling, fields, submission(self));
}

PyTicket embed(PyLease& self, const PyEventQueue& queue, uint64_t id, std::vector<std::string> texts,
               const std::string& pooling, std::optional<bool> normalize) {
  PyTicket ticket;
  check(self.at_once([&](Lease& lease) {
    ticket.ticket =
        lease.submit_embedding(std::move(texts), embedding_options(pooling, normalize), callback_to(queue, id));
  }));
  return ticket;
}

}  // namespace

nb::object end_object(Lease lease) {
  return nb::cast(std::make_unique<PyLease>(std::make_unique<Lease>(std::move(lease))).release(),
                  nb::rv_policy::take_ownership);
}

void bind_manager(nb::module_& module) {
  using R = ModelRegistration;
  Fields<R>(module, "ModelRegistration", "What registering a model says about it.")
      .field("name", &R::name, "Or name:version.")
      .field("version", &R::version, "Empty: as the name says it, else \"1\".")
      .field("path", &R::path, "A directory, or a hub id.")
      .field("format", &R::format, "None: found out from the files.")
      .field("revision", &R::revision, "Of a hub id; empty: the hub's main.")
      .field("aliases", &R::aliases, "Further names.")
      .field("pinned", &R::pinned, "Never unloaded to make room.")
      .field("keep_alive", &R::keep_alive, "Idle seconds in memory; None: the manager's default; -1: for ever.")
      .field("settings", &R::settings, "Of its engine, by their configuration names.")
      .field("metadata", &R::metadata, "The owner's notes.")
      .finish();

  module.def("make_model_info", &make_model_info, nb::arg("id"), nb::arg("name"), nb::arg("version"), nb::arg("path"),
             nb::arg("format").none(), nb::arg("state"), nb::arg("failure"), nb::arg("active"), nb::arg("pinned"),
             nb::arg("aliases"), nb::arg("leases"), nb::arg("memory_bytes"), nb::arg("sleep_bytes"),
             nb::arg("load_count"), nb::arg("load_seconds"), nb::arg("last_used"));

  nb::class_<PyLease>(module, "Lease")
      .def("id",
           [](PyLease& self) {
             return value_of(self.shared([](Lease& lease) { return Result<std::string>(lease.id()); }));
           })
      .def("submit", &submit)
      .def("begin", &begin_generation, nb::arg(), nb::arg().none(), nb::arg())
      .def("wait_for", &wait_for_generation, nb::arg(), nb::arg().none(), nb::arg())
      .def("embed", &embed, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
      .def("end", &PyLease::end);

  using M = ModelManager;
  nb::class_<PyManager>(module, "Manager")
      .def("__init__", &make_manager)
      .def("register_model",
           [](PyManager& self, const R& registration) {
             return value_of(self.shared([&](M& manager) { return manager.register_model(registration); }));
           })
      .def("remove_model",
           [](PyManager& self, const std::string& id, int64_t patience) {
             check(self.shared([&](M& manager) { return manager.remove_model(id, seconds(patience)); }));
           })
      .def("unload",
           [](PyManager& self, const std::string& name, int64_t patience) {
             check(self.shared([&](M& manager) { return manager.unload(name, seconds(patience)); }));
           })
      .def("sleep",
           [](PyManager& self, const std::string& name, int64_t patience) {
             check(self.shared([&](M& manager) { return manager.sleep(name, seconds(patience)); }));
           })
      .def("wake_up", status_call(&M::wake_up))
      .def("acquire", &acquire)
      .def("pin", status_call(&M::pin))
      .def("set_keep_alive", status_call(&M::set_keep_alive), nb::arg(), nb::arg().none())
      .def("switch_version", status_call(&M::switch_version))
      .def("rollback", status_call(&M::rollback))
      .def("set_alias", status_call(&M::set_alias))
      .def("remove_alias", status_call(&M::remove_alias))
      .def("models",
           [](PyManager& self) {
             return value_of(self.shared([](M& manager) { return Result<std::vector<ModelInfo>>(manager.models()); }));
           })
      .def("model",
           [](PyManager& self, const std::string& name) {
             return value_of(self.shared([&](M& manager) { return manager.model(name); }));
           })
      .def("memory_used",
           [](PyManager& self) {
             return value_of(self.shared([](M& manager) { return Result<uint64_t>(manager.memory_used()); }));
           })
      .def("memory_budget",
           [](PyManager& self) {
             return value_of(self.shared([](M& manager) { return Result<uint64_t>(manager.memory_budget()); }));
           })
      .def("end", &PyManager::end);
}

}  // namespace inferneo::python
