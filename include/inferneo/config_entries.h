// What stands in lists of the configuration file: models, and keys with limits. Plain data, as config.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace inferneo {

// One model of the configuration file's `models`, and what holds for it alone.
struct ModelEntry {
  std::string source = {};                           // path of a directory or hub id
  std::string name = {};                             // in the API; empty: the model's own
  std::string version = {};                          // of the name; empty: "1"
  std::string revision = {};                         // of a hub id; empty: main
  std::string format = {};                           // empty: what the files are
  std::vector<std::string> aliases = {};             // further names
  bool pinned = false;                               // nothing takes its place in memory
  std::optional<int64_t> keep_alive = {};            // seconds without a request; -1: for ever; none: as for the others
  std::map<std::string, std::string> settings = {};  // by their names as fields
  std::map<std::string, std::string> metadata = {};
  std::string where = {};  // "inferneo.yaml:3:7", for errors
};

// An API key with a name, and what it may do; what is not said is as for every key.
struct KeyLimits {
  std::string name = {};                                // in metrics and errors
  std::string key = {};                                 // secret; or
  std::string key_sha256 = {};                          // of it, in hexadecimal digits
  std::optional<int64_t> requests_per_minute = {};      // 0: no limit, as with the next two
  std::optional<int64_t> tokens_per_minute = {};        // prompts and what is generated
  std::optional<int64_t> max_concurrent_requests = {};  // under way at a time
  double weight = 1.0;                                  // of its share where keys compete
  std::string where = {};                               // "inferneo.yaml:3:7", for errors
};
inline constexpr int kMaxApiKeys = 1000;
// What metrics and errors call requests without a key, and the keys of `api_key`: "key-1", "key-2", ...
inline constexpr const char* kDefaultKeyName = "default";
inline constexpr const char* kUnnamedKeyPrefix = "key-";

}  // namespace inferneo
