#include "engines.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stop_token>

#include "asking.h"
#include "config.h"
#include "data.h"
#include "inferneo/engine.h"
#include "inferneo/enhanced_engine.h"
#include "submission.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

using PyEngine = Owned<InferneoEngine>;
using PyEnhanced = Owned<EnhancedInferneoEngine>;
using Headers = std::map<std::string, std::string>;

EnhancedGenerateOptions options_of(std::string model, std::string user, std::string session, Headers headers,
                                   std::string forced_arm) {
  return {.model = std::move(model),
          .user = std::move(user),
          .session = std::move(session),
          .headers = std::move(headers),
          .forced_arm = std::move(forced_arm)};
}

PyTicket submit_plain(PyEngine& self, const PyEventQueue& queue, uint64_t id, std::string prompt,
                      const SamplingParams& sampling, std::string model, bool stream) {
  PyTicket ticket;
  check(self.at_once([&](InferneoEngine& engine) {
    ticket.ticket =
        engine.submit(std::move(prompt), sampling, callbacks_to(queue, id, stream, sampling), std::move(model));
  }));
  return ticket;
}

// None means no model, and is plain.
std::optional<std::string> plain_model(nb::handle model) { return model.is_none() ? std::string() : plain_text(model); }

// What begin() and wait_for() submit (asking.h).
auto submission(PyEngine& self, std::string& model) {
  return [&](const PyEventQueue& queue, uint64_t id, std::string text, const SamplingParams& chosen) {
    return submit_plain(self, queue, id, std::move(text), chosen, std::move(model), false);
  };
}

PyTicket submit_enhanced(PyEnhanced& self, const PyEventQueue& queue, uint64_t id, std::string prompt,
                         const SamplingParams& sampling, std::string model, bool stream, std::string user,
                         std::string session, Headers headers, std::string forced_arm) {
  PyTicket ticket;
  auto options =
      options_of(std::move(model), std::move(user), std::move(session), std::move(headers), std::move(forced_arm));
  check(self.at_once([&](EnhancedInferneoEngine& engine) {
    ticket.ticket =
        engine.submit(std::move(prompt), sampling, callbacks_to(queue, id, stream, sampling), std::move(options));
  }));
  return ticket;
}

// The same, of what routing is told nothing about but the model.
auto submission(PyEnhanced& self, std::string& model) {
  return [&](const PyEventQueue& queue, uint64_t id, std::string text, const SamplingParams& chosen) {
    return submit_enhanced(self, queue, id, std::move(text), chosen, std::move(model), false, {}, {}, {}, {});
  };
}

template <typename Engine>
nb::object begin_generation(Owned<Engine>& self, nb::handle prompt, nb::handle sampling, nb::handle model,
                            const nb::dict& fields) {
  std::optional<std::string> which = plain_model(model);
  return which ? begin(prompt, sampling, fields, submission(self, *which)) : nb::none();
}

template <typename Engine>
nb::object wait_for_generation(Owned<Engine>& self, nb::handle prompt, nb::handle sampling, nb::handle model,
                               const nb::dict& fields) {
  std::optional<std::string> which = plain_model(model);
  return which ? wait_for(prompt, sampling, fields, submission(self, *which)) : nb::none();
}

// Both classes: they start, stop and end alike, and are asked alike for what is plain.
template <typename Engine>
nb::class_<Owned<Engine>> bind_engine(nb::module_& module, const char* name) {
  using Py = Owned<Engine>;
  nb::class_<Py> cls(module, name);
  cls.def("__init__", [](Py* self, const Config& config) { new (self) Py(std::make_unique<Engine>(config.value)); });
  cls.def("start", [](Py& self, const std::stop_source& starting) {
    check(self.exclusive([&](Engine& engine) { return engine.start(starting.get_token()); }));
  });
  cls.def("stop", [](Py& self) {
    check(self.exclusive([](Engine& engine) {
      engine.stop();
      return ok_status();
    }));
  });
  cls.def("end", &Py::end);
  cls.def("begin", &begin_generation<Engine>, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg());
  cls.def("wait_for", &wait_for_generation<Engine>, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg());
  return cls;
}

PyTicket embed_plain(PyEngine& self, const PyEventQueue& queue, uint64_t id, std::vector<std::string> texts,
                     const std::string& pooling, std::optional<bool> normalize, std::string model) {
  PyTicket ticket;
  check(self.at_once([&](InferneoEngine& engine) {
    ticket.ticket = engine.submit_embedding(std::move(texts), embedding_options(pooling, normalize),
                                            callback_to(queue, id), std::move(model));
  }));
  return ticket;
}

PyTicket embed_enhanced(PyEnhanced& self, const PyEventQueue& queue, uint64_t id, std::vector<std::string> texts,
                        const std::string& pooling, std::optional<bool> normalize, std::string model, std::string user,
                        std::string session, Headers headers, std::string forced_arm) {
  PyTicket ticket;
  auto options =
      options_of(std::move(model), std::move(user), std::move(session), std::move(headers), std::move(forced_arm));
  check(self.at_once([&](EnhancedInferneoEngine& engine) {
    ticket.ticket = engine.submit_embedding(std::move(texts), embedding_options(pooling, normalize),
                                            callback_to(queue, id), std::move(options));
  }));
  return ticket;
}

// A call with one argument that answers with a Status.
template <typename Argument>
auto status_call(Status (EnhancedInferneoEngine::*method)(const Argument&)) {
  return [method](PyEnhanced& self, const Argument& argument) {
    check(self.shared([&](EnhancedInferneoEngine& engine) { return (engine.*method)(argument); }));
  };
}

std::vector<std::string> explain(PyEnhanced& self, std::string prompt, std::string model, std::string user,
                                 std::string session, Headers headers, std::string forced_arm) {
  auto options =
      options_of(std::move(model), std::move(user), std::move(session), std::move(headers), std::move(forced_arm));
  return value_of(self.shared(
      [&](EnhancedInferneoEngine& engine) { return engine.explain(std::move(prompt), std::move(options)); }));
}

void bind_traffic_calls(nb::class_<PyEnhanced>& cls) {
  using E = EnhancedInferneoEngine;
  cls.def("add_routing_rule", status_call(&E::add_routing_rule));
  cls.def("replace_routing_rule", status_call(&E::replace_routing_rule));
  cls.def("remove_routing_rule", status_call(&E::remove_routing_rule));
  cls.def("set_routing_options", status_call(&E::set_routing_options));
  cls.def("add_ab_test", status_call(&E::add_ab_test));
  cls.def("pause_ab_test", status_call(&E::pause_ab_test));
  cls.def("resume_ab_test", status_call(&E::resume_ab_test));
  cls.def("stop_ab_test", status_call(&E::stop_ab_test));
  cls.def("remove_ab_test", status_call(&E::remove_ab_test));
  cls.def("add_shadow", status_call(&E::add_shadow));
  cls.def("replace_shadow", status_call(&E::replace_shadow));
  cls.def("remove_shadow", status_call(&E::remove_shadow));
  cls.def("promote", [](PyEnhanced& self, const std::string& test, const std::string& arm) {
    check(self.shared([&](E& engine) { return engine.promote(test, arm); }));
  });
  cls.def("explain", &explain);
}

}  // namespace

void bind_engines(nb::module_& module) {
  nb::class_<PyTicket>(module, "Ticket").def("cancel", &PyTicket::cancel);
  nb::class_<std::stop_source>(module, "Starting").def(nb::init<>()).def("give_up", [](std::stop_source& self) {
    without_gil([&] { return self.request_stop(); });
  });
  bind_engine<InferneoEngine>(module, "Engine")
      .def("submit", &submit_plain)
      .def("embed", &embed_plain, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg());

  auto enhanced = bind_engine<EnhancedInferneoEngine>(module, "EnhancedEngine");
  enhanced.def("submit", &submit_enhanced);
  enhanced.def("embed", &embed_enhanced, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
               nb::arg(), nb::arg(), nb::arg(), nb::arg());
  enhanced.def("register_model", [](PyEnhanced& self, const ModelRegistration& registration) {
    return value_of(self.shared([&](EnhancedInferneoEngine& engine) { return engine.register_model(registration); }));
  });
  enhanced.def("remove_model", status_call(&EnhancedInferneoEngine::remove_model));
  bind_traffic_calls(enhanced);
  enhanced.def("get_stats", [](PyEnhanced& self) {
    return stats_dict(value_of(
        self.shared([](EnhancedInferneoEngine& engine) { return Result<EnhancedStats>(engine.get_stats()); })));
  });
}

}  // namespace inferneo::python
