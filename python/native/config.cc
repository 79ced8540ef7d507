// EngineConfig: every field, its range and its words come from the one table in base/config/field_table.cc.
#include "config.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <utility>

#include "base/config/environment.h"
#include "base/config/field.h"
#include "base/config/load.h"
#include "base/config/suggest.h"
#include "data.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

using Values = std::map<std::string, std::vector<std::string>>;  // written forms, by field

Error unknown_field(const std::string& name) {
  std::vector<std::string_view> known;
  for (const ConfigField& field : config_fields()) known.push_back(field.name);
  return make_error(ErrorCode::invalid_argument,
                    "EngineConfig has no field '" + name.substr(0, 80) + "'" + did_you_mean(name, known), name);
}

const ConfigField& field_named(const std::string& name) {
  const ConfigField* field = find_config_field(name);
  if (field == nullptr) raise(unknown_field(name));
  return *field;
}

// From the environment, the file and the values, in that order of precedence from the lowest.
Config load(const Values& values, const std::optional<std::string>& file, bool use_environment) {
  ConfigInputs inputs;
  inputs.default_file = "";  // a program is told its file
  if (file) inputs.file = *file;
  const Environment process = Environment::of_process();
  if (use_environment) {
    inputs.environment = process;
  } else {  // the standard places stay
    Environment::Variables kept;
    for (const auto& [name, value] : process.all()) {
      if (!name.starts_with("INFERNEO_")) kept.emplace(name, value);
    }
    inputs.environment = Environment(std::move(kept));
  }
  for (const auto& [name, written] : values) {
    (void)field_named(name);
    for (const std::string& value : written) inputs.flags.push_back({name, value, name});
  }
  LoadedConfig loaded = value_of(load_config(inputs));
  for (const auto& [name, written] : values) {
    // An empty list is a value as well.
    if (written.empty()) check(set_field(loaded.config, field_named(name), {}));
  }
  Config config{std::move(loaded.config), {}, std::move(loaded.warnings), std::move(loaded.notices)};
  for (const auto& [name, origin] : loaded.origins) config.given.emplace(name);
  for (const auto& [name, written] : values) config.given.insert(name);
  return config;
}

nb::object get(const Config& self, const std::string& name) {
  return std::visit([&](const auto& member) { return to_python(self.value.*member); }, field_named(name).member);
}

void set(Config& self, const std::string& name, const std::vector<std::string>& values) {
  const ConfigField& field = field_named(name);
  EngineConfig changed = self.value;
  if (Status status = set_field(changed, field, values); !status.ok()) {
    Error error = std::move(status).error();
    error.message = name + ": " + error.message;
    raise(error);
  }
  check(validate_config(changed));
  self.value = std::move(changed);
  self.given.insert(name);
}

nb::list described_fields() {
  const EngineConfig standard;
  nb::list rows;
  for (const ConfigField& field : config_fields()) {
    nb::dict row;
    row["name"] = std::string(field.name);
    row["type"] = std::visit(
        [](const auto& member) {
          return PythonType<std::decay_t<decltype(std::declval<EngineConfig>().*member)>>::name();
        },
        field.member);
    row["group"] = std::string(config_group_title(field.group));
    row["help"] = std::string(field.help);
    row["expected"] = field_expectation(field);
    row["default"] = format_field(standard, field);
    row["environment"] = field_environment(field);
    row["is_path"] = field.is_path;
    row["secret"] = field.secret;
    row["unset_word"] = std::string(field.unset_word);
    rows.append(row);
  }
  return rows;
}

// Fields that somebody set to something else than their default, as text; secrets as ***.
nb::dict changed_fields(const Config& self) {
  const EngineConfig standard;
  nb::dict changed;
  for (const ConfigField& field : config_fields()) {
    if (!self.given.contains(std::string(field.name))) continue;  // found out from the machine
    if (field_values(self.value, field) != field_values(standard, field)) {
      changed[nb::cast(std::string(field.name))] = format_field(self.value, field);
    }
  }
  return changed;
}

// What differs from the defaults, for another process: secrets included.
Values written_fields(const Config& self) {
  const EngineConfig standard;
  Values written;
  for (const ConfigField& field : config_fields()) {
    auto values = field_values(self.value, field);
    if (values != field_values(standard, field)) written[std::string(field.name)] = std::move(values);
  }
  return written;
}

}  // namespace

void bind_config(nb::module_& module) {
  nb::class_<Config>(module, "Config")
      .def_static("load", &load, nb::arg("values"), nb::arg("file").none(), nb::arg("use_environment"))
      .def_static("fields", &described_fields)
      .def("get", &get, nb::arg("name"))
      .def("set", &set, nb::arg("name"), nb::arg("values"))
      .def("changed", &changed_fields)
      .def("written", &written_fields)
      .def_prop_rw(
          "given", [](const Config& self) { return std::vector<std::string>(self.given.begin(), self.given.end()); },
          [](Config& self, const std::vector<std::string>& names) {
            self.given = {names.begin(), names.end()};
          })
      .def("copy", [](const Config& self) { return self; })
      .def_prop_rw(
          "routing_rules", [](const Config& self) { return self.value.routing_rules; },
          [](Config& self, std::vector<RoutingRule> rules) { self.value.routing_rules = std::move(rules); })
      .def_prop_rw(
          "ab_tests", [](const Config& self) { return self.value.ab_tests; },
          [](Config& self, std::vector<ABTestConfig> tests) { self.value.ab_tests = std::move(tests); })
      .def_prop_rw(
          "shadow", [](const Config& self) { return self.value.shadow; },
          [](Config& self, std::vector<ShadowConfig> shadow) { self.value.shadow = std::move(shadow); })
      .def_prop_ro("warnings", [](const Config& self) { return self.warnings; })
      .def_prop_ro("notices", [](const Config& self) { return self.notices; });
}

}  // namespace inferneo::python
