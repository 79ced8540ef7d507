// The golden file of this room, which tools/make_experiment_goldens.py writes.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>

namespace inferneo {

inline const nlohmann::json& experiment_goldens() {
  static const nlohmann::json kGoldens = [] {
    std::ifstream file(INFERNEO_SOURCE_DIR "/tests/unit/experiments/data/goldens.json");
    return nlohmann::json::parse(file);
  }();
  return kGoldens;
}

}  // namespace inferneo
