// The configuration that Python objects hold, and what its loading had to say.
#pragma once

#include <nanobind/nanobind.h>

#include <set>
#include <string>
#include <vector>

#include "inferneo/config.h"

namespace inferneo::python {

struct Config {
  EngineConfig value;
  std::set<std::string> given;  // fields that somebody set, to their default as well
  std::vector<std::string> warnings;
  std::vector<std::string> notices;
};

void bind_config(nanobind::module_& module);

}  // namespace inferneo::python
