// What `inferneo models` prints: the answer of GET /admin/models as a table.
//
// Pure. The answer comes from elsewhere: every field is checked, texts are made fit for one line of a terminal, and
// what is missing shows as "-".
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace inferneo {

// A model as the admin routes describe it; only what people are shown.
struct ModelView {
  std::string id;
  std::string format;  // empty: not known, as the next
  std::string dtype;   // of the weights in memory
  std::string state;
  std::string source, revision, origin;
  std::vector<std::string> aliases = {};
  std::map<std::string, std::string> settings = {}, metadata = {};
  std::string failure;  // empty: none
  bool active = false, pinned = false, removing = false;
  uint64_t memory_bytes = 0;
  uint64_t sleep_bytes = 0;  // of the host's memory, while it sleeps
  int64_t leases = 0;
  int64_t queue_place = 0;
  std::optional<int64_t> last_used = {};  // seconds since the epoch
  std::optional<int64_t> keep_alive = {};
  std::optional<double> keep_alive_left = {};
  std::optional<double> load_seconds = {};
  std::string stage;  // of a load under way
  uint64_t bytes_done = 0, bytes_total = 0;
};

// malformed, naming the field. `id` and `state` must be there.
Result<ModelView> view_of_model(const nlohmann::json& model);
Result<std::vector<ModelView>> views_of_list(const nlohmann::json& answer);

struct TableOptions {
  int width = 0;         // columns; 0: as many as it takes
  int64_t now = 0;       // seconds since the epoch
  bool verbose = false;  // source, aliases, settings below each
};
// Lines with newlines. A model that failed has its reason on a line of its own. Columns are left out where the width
// does not suffice: format and type first, then the time of loading, of the last use, what is left of keep_alive.
std::string model_table(const std::vector<ModelView>& models, const TableOptions& options);
// "412 MiB of 12.0 GiB in use", or nothing where the answer does not say.
std::string memory_line(const nlohmann::json& answer);

}  // namespace inferneo
