// What registering a model says about it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "inferneo/model_format.h"

namespace inferneo {

inline constexpr int64_t kKeepForever = -1;

struct ModelRegistration {
  std::string name;                        // or name:version
  std::string version = {};                // empty: as `name` says it, else "1"
  std::string path = {};                   // a directory, or a hub id
  std::optional<ModelFormat> format = {};  // none: found out from the files
  std::string revision = {};               // of a hub id; empty: the hub's main
  std::vector<std::string> aliases = {};   // further names, of its name
  bool pinned = false;                     // never unloaded to make room
  std::optional<int64_t> keep_alive = {};  // idle seconds in memory; none: the manager's default; kKeepForever
  std::map<std::string, std::string> settings = {};  // of its engine; chat_template: Jinja text, not a file's name
  std::map<std::string, std::string> metadata = {};  // the owner's notes
};

}  // namespace inferneo
