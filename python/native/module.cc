// The extension module inferneo._native: what the package's own modules stand on. Nobody else imports it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <array>
#include <string>
#include <utility>

#include "answer.h"
#include "asking.h"
#include "base/log.h"
#include "config.h"
#include "data.h"
#include "engines.h"
#include "errors.h"
#include "event_queue.h"

namespace {

void set_log_level_by_name(const std::string& name) {
  using inferneo::LogLevel;
  constexpr std::array kLevels = {std::pair{"debug", LogLevel::debug}, std::pair{"info", LogLevel::info},
                                  std::pair{"warning", LogLevel::warning}, std::pair{"error", LogLevel::error},
                                  std::pair{"off", LogLevel::off}};
  for (const auto& [word, level] : kLevels) {
    if (name == word) return inferneo::set_log_level(level);
  }
  inferneo::python::raise(
      inferneo::make_error(inferneo::ErrorCode::invalid_argument,
                           "expected debug, info, warning, error or off, got '" + name.substr(0, 80) + "'", "level"));
}

}  // namespace

NB_MODULE(_native, module) {
  using namespace inferneo::python;  // NOLINT(google-build-using-namespace)
  module.attr("__version__") = INFERNEO_VERSION;
  // What is still alive at the interpreter's end is ended by the package before (inferneo/_bridge.py).
  nanobind::set_leak_warnings(false);
  bind_errors(module);
  bind_results(module);
  bind_sampling(module);
  bind_traffic(module);
  bind_config(module);
  bind_answer(module);
  bind_event_queue(module);
  bind_asking(module);
  bind_engines(module);
  bind_manager(module);
  bind_onnx(module);
  module.def("set_log_level", &set_log_level_by_name);
}
