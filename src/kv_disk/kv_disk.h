// The prefix cache's level on disk, for all models of a process: a folder of blocks (KvFolder), one thread that writes
// and one that reads.
//
// Goals: the engines never wait for the disk; what there is no room or memory for is dropped; whatever goes wrong with
// a file is a miss. When files cannot be written any more (a full disk, a folder that is read-only) there is one
// warning, and the level is off for as long as the process lives. Blocks on their way lie in memory that is booked to
// "prefix cache" (staging), at most kWriting of them for all models and kReading for each, and only while a sixteenth
// of the budget stays free. Readers take turns, block by block, among all fetches whose model has room for what comes.
//
// Ownership: tiers may outlive the KvDisk, and are off then; the ledger outlives both.
// Threads: any; a tier as KvTier says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "engine/kv_tier.h"
#include "tensor/ledger.h"

namespace inferneo {

class KvDisk {
 public:
  static constexpr size_t kWriting = size_t{64} << 20;
  static constexpr size_t kReading = size_t{32} << 20;

  struct Options {
    std::string folder;
    uint64_t max_bytes = 0;
  };
  // Looks at the folder. One that cannot be used costs a warning, and every tier is null then.
  KvDisk(const Options& options, MemoryLedger& ledger);
  ~KvDisk();  // stop(0)
  KvDisk(const KvDisk&) = delete;
  KvDisk& operator=(const KvDisk&) = delete;

  // Null: the level is off, or the model's blocks are too large for it.
  std::unique_ptr<KvTier> open(const KvTierSpec& spec, std::function<void()> wake);

  // Nothing more is taken; what is on its way to the disk is written for so long, and then given up.
  void stop(Duration grace);

 private:
  struct State;
  struct Model;
  class Tier;
  std::shared_ptr<State> state_;
};

}  // namespace inferneo
