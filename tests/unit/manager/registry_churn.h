// Random operations on a registry, the same for the same seed: the writer that is killed and the test that checks what
// it left behind draw them alike.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "manager/registry.h"

namespace inferneo::testing {

class RegistryChurn {
 public:
  explicit RegistryChurn(uint64_t seed) : random_(seed) {}

  // Does the next operation. False when the registry refused it.
  bool step(Registry& registry) {
    const std::string name = "model-" + std::to_string(draw(5));
    const std::string version = std::to_string(1 + draw(4));
    const std::string alias = "alias-" + std::to_string(draw(4));
    const auto number = static_cast<int64_t>(draw(1'000'000));
    switch (draw(12)) {
      case 0:
      case 1:
      case 2:
        return registry.add(record(name, version, number)).ok();
      case 3:
      case 4:
        return registry.remove({name, version}).ok();
      case 5:
        return registry.set_active(name, version).ok();
      case 6:
        return number % 2 == 0 ? registry.rollback(name).ok() : registry.set_active(name, std::nullopt).ok();
      case 7:
        return registry.set_alias(alias, number % 2 == 0 ? name : name + ":" + version).ok();
      case 8:
        return number % 4 == 0 ? registry.remove_alias(alias).ok()
                               : registry.set_policy(name, {VersionPolicy::Kind::specific, {version, "1"}}).ok();
      case 9:
        return registry.record_usage({{{name, version}, number, 1}, {{name, "1"}, number, 2}}).ok();
      case 10:
        return registry.update_settings({name, version}, {{"max_model_len", std::to_string(number)}}).ok();
      default:
        // A whole set at once: half of it would be seen.
        return registry
            .reconcile_config({{record("file-a", version, 1), record("file-b", version, 2), record("file-c", "1", 3)},
                               {{.alias = "file-alias", .name = "file-b", .version = version}}})
            .ok();
    }
  }

 private:
  uint64_t draw(uint64_t below) { return random_() % below; }
  static ModelRecord record(const std::string& name, const std::string& version, int64_t number) {
    ModelRecord made;
    made.id = {name, version};
    made.source = "models/" + name + "-" + version;
    made.settings = {{"dtype", "bf16"}, {"max_model_len", std::to_string(number)}};
    // Large enough that a write takes several pages.
    made.metadata = {{"note", std::string(static_cast<size_t>(number % 9000), 'x')}};
    made.created = 1 + number;
    return made;
  }
  std::mt19937_64 random_;
};

}  // namespace inferneo::testing
