// Downloads a model from the hub into the hub's cache, where resolve_model_source() and the Python tools find it.
//
// Only what serving needs is fetched. A file gets its name in the cache when all of it has come and its hash is that of
// the hub, and a revision points to a snapshot when all its files are there; so what can be opened is whole, whenever
// the power fails. Two pulls of one model, in this process or in others, share the work.
//
// pull_snapshot() runs on the calling thread, which is blocked on the network and the disk. There is no shared state:
// any number of threads may pull. Memory: about HubTuning::connections * part_bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/hub_tuning.h"
#include "formats/model_source.h"

namespace inferneo {

struct HubAccess {
  std::string endpoint = "https://huggingface.co";
  std::string token = {};       // secret: in no message, sent to the endpoint's origin only
  std::string token_file = {};  // read when there is no token; need not exist
  std::string cache = {};       // as hub_cache_directory() says
  bool offline = false;         // every call is answered by `unavailable`
};

struct HubProgress {
  std::string file;  // under way
  size_t files_done = 0;
  size_t files_total = 0;
  uint64_t bytes_done = 0;  // of all files, with what was there before
  uint64_t bytes_total = 0;
  double bytes_per_second = 0.0;  // over the last seconds; 0: not known
  bool waiting = false;           // another pull downloads this file
};

struct HubPull {
  HubId id;
  std::vector<std::string> globs = {};  // only files that match one of them; empty: what serving needs
  std::function<void(const HubProgress&)> on_progress = {};  // about ten times a second, on the calling thread
  std::stop_token stop = {};                                 // seen within a fraction of a second
};

struct HubSnapshot {
  std::string commit;
  std::string path;                // the snapshot's folder
  std::vector<std::string> files;  // in it
  uint64_t bytes = 0;              // of all of them
  uint64_t bytes_downloaded = 0;   // by this call
};

// Errors: not_found (model, revision or files), forbidden (gated, token not accepted), unavailable (offline, network,
// rate limit), malformed (what came is not what the hub announced), refused (pickles, hostile names and redirects),
// disk_full, io_error, cancelled, invalid_argument (endpoint, token, no cache). What has come is kept for the next call
// unless its hash is wrong.
Result<HubSnapshot> pull_snapshot(const HubAccess& access, const HubPull& pull, const HubTuning& tuning = {});

// Ids of models that the hub finds for `text`, for "did you mean"; at most ten.
Result<std::vector<std::string>> search_hub(const HubAccess& access, std::string_view text, std::stop_token stop = {},
                                            const HubTuning& tuning = {});

// "1.5 GB", "20 kB", "3 bytes"
std::string byte_text(uint64_t bytes);

}  // namespace inferneo
