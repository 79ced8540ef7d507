// Where models get their weights from, so that the same content is packed once and lies in memory once.
//
// A content is the bytes of the weight files (formats/content_key.h), the layout and the instruction set. A load of it
//   shares the weights that another model is using at this moment,
//   else maps the file that an earlier load has left in the cache folder (formats/packed_cache.h): nothing is packed,
//   else packs them, and a thread of its own writes that file while the model serves already.
// The last user's going waits for that writing, so that the next load finds the file; the program's end waits a while.
//
// Without a folder nothing is hashed and kept; what comes from the same files is shared all the same. A folder that
// cannot be written, or has no room, costs a warning and the next load's time.
//
// Books: a content is booked to its own name in the ledger ("weights 3f2a8c01d7e4"), whoever uses it, and given back
// with its last user; while it is packed, the checkpoint's mapping is booked to the model that loads it.
// Threads: any; loads of one content wait for each other. What it hands out may outlive the store.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/content_key.h"
#include "formats/model_directory.h"
#include "formats/packed_cache.h"
#include "models/transformers/weights.h"
#include "tensor/ledger.h"

namespace inferneo {

// How a model came to its weights.
enum class WeightOrigin : uint8_t { packed, mapped, shared };
const char* weight_origin_name(WeightOrigin origin);

struct WeightRequest {
  const ModelDirectory* directory = nullptr;
  const DecoderSpec* spec = nullptr;
  std::string isa;    // of the op table that will read them
  std::string model;  // who asks: for the books and for messages
  MemoryLedger* ledger = nullptr;
  ThreadPool* pool = nullptr;
  LoadProgressCallback progress = {};
  Quantization quantization = Quantization::none;
};

// One model's hold on weights.
struct WeightLease {
  std::shared_ptr<const ModelWeights> weights;
  MemoryLedger::Use use;
  WeightOrigin origin = WeightOrigin::packed;
  std::string content;  // key of bytes, layout and instruction set; never empty
};

struct WeightFileCheck {
  std::string file;
  std::string expected;  // its key; empty: not known before
  std::string found;
  bool matches() const { return expected.empty() || expected == found; }
};

class WeightStore {
 public:
  struct Options {
    std::string folder = {};  // empty: nothing is kept on disk
    uint64_t max_bytes = 0;   // of the folder; 0: the same
    std::string hub_cache = {};
  };
  explicit WeightStore(const Options& options);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // Errors: those of Checkpoint and load_weights(); malformed when a file changes meanwhile.
  Result<WeightLease> load(const WeightRequest& request);

  // What load() would book at most, and what stays booked, as things are now. Reads headers and hashes nothing.
  struct Need {
    size_t loading = 0;
    size_t resident = 0;
  };
  Result<Need> estimate(const WeightRequest& request);

  // Hashes a model's weight files again and compares with what loads believe; one entry per file.
  Result<std::vector<WeightFileCheck>> verify(const ModelDirectory& directory) const;

  // The program ends: files that are not written within `grace` are given up. Loads afterwards keep nothing.
  void stop_writing(Duration grace);

 private:
  struct Stored;
  struct Slot;
  struct Plan;
  Result<Plan> make_plan(const WeightRequest& request, bool hash) const;
  std::shared_ptr<Slot> slot_of(const std::string& key);
  Result<std::shared_ptr<Stored>> map(const WeightRequest& request, const Plan& plan) const;
  Result<std::shared_ptr<Stored>> pack(const WeightRequest& request, const Plan& plan) const;
  void keep(const WeightRequest& request, const Plan& plan, Stored& stored) const;

  const ContentKeys keys_;
  const std::shared_ptr<const PackedCache> cache_;
  const std::shared_ptr<std::atomic<Duration::rep>> deadline_;  // of writing, on the steady clock
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;  // by content
};

}  // namespace inferneo
