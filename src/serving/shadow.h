// One shadow in force: its queue of copies, those under way, and what came of them.
//
// A copy's life: offered when its original has been accepted; dropped at once (queue, budget, the shadow model is not
// in memory), or it waits for one of max_concurrent places and goes to the inner service as an idle request. It and its
// original end in any order; when both have, they are compared. An original that fails, or whose client leaves, takes
// its copy with it. Copies under way that must make room (yield_room) go back to the front of the queue.
//
// Thread-safe: one mutex, held for a few lines, never across a call of the service. Law of the counts:
// sent == completed + dropped + failed + what is in hand.
// Ownership: shared by the book, by copies under way and by originals that have one; the host outlives them all.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "experiments/siphash.h"
#include "inferneo/shadow.h"
#include "serving/inference_service.h"
#include "serving/shadow_budget.h"
#include "serving/shadow_pair.h"

namespace inferneo {

class TrafficModels;

enum class ShadowDrop : uint8_t { queue_full, budget, not_in_memory, original_ended, removed };
inline constexpr size_t kNumShadowDrops = 5;
std::string_view shadow_drop_name(ShadowDrop reason);

struct ShadowCounts {
  int64_t sent = 0;  // originals that were chosen to be copied
  int64_t completed = 0;
  int64_t failed = 0;  // by the shadow model's doing
  std::array<int64_t, kNumShadowDrops> dropped{};
  int64_t prompt_tokens = 0;  // of completed copies
  int64_t completion_tokens = 0;

  int64_t all_dropped() const {
    int64_t sum = 0;
    for (const int64_t count : dropped) sum += count;
    return sum;
  }
};

// What came of the copies; lives on when the shadow is replaced by one of the same models.
struct ShadowResults {
  static constexpr size_t kKept = 256;
  mutable std::mutex mutex;
  ShadowCounts counts;
  ShadowDifferences differences;
  std::deque<ShadowPair> pairs;  // the last ones, the newest last
};

// An original that has copies: its answer, once it has ended. Written by its tap alone, until `ended` is set.
struct ShadowOriginal {
  explicit ShadowOriginal(bool keep_text) : answer(keep_text) {}
  ShadowAnswer answer;
  std::atomic<bool> ended{false};
};

class Shadow : public std::enable_shared_from_this<Shadow> {
 public:
  struct Host {
    InferenceService& inner;
    const TrafficModels& models;
    const Clock& clock;
    std::function<void(const std::string& model)> load = {};  // into memory, where there is room; returns at once
  };
  struct Copy;

  Shadow(const Host& host, ShadowConfig config, std::shared_ptr<ShadowResults> results);

  const ShadowConfig& config() const { return config_; }
  const std::shared_ptr<ShadowResults>& results() const { return results_; }
  // Whether a request for this model (name:version; empty: there is none such) with this key is to be copied.
  bool wants(std::string_view model, std::string_view key) const;

  // The copy of an original that was accepted; null: it was dropped.
  std::shared_ptr<Copy> offer(const GenerateRequest& request, int32_t prompt_tokens,
                              std::shared_ptr<ShadowOriginal> original);
  void original_ended(const std::shared_ptr<Copy>& copy);
  void yield_room();  // copies under way end soon, and none begins before resume()
  void resume();
  void end();  // for good: every copy is dropped
  size_t in_hand() const;

 private:
  class CopySink;

  void pump();
  void start(const std::shared_ptr<Copy>& copy);
  void copy_ended(const std::shared_ptr<Copy>& copy, const GenerateOutcome& outcome);
  void finish_if_both_ended(const std::shared_ptr<Copy>& copy);
  void drop(const std::shared_ptr<Copy>& copy, ShadowDrop reason);
  void count_drop(ShadowDrop reason);
  std::optional<ShadowDrop> refusal(size_t bytes, int64_t tokens, bool in_memory);

  const Host host_;
  const ShadowConfig config_;
  const SipKey key_;
  const std::shared_ptr<ShadowResults> results_;

  mutable std::mutex mutex_;  // guards what follows, and the copies
  ShadowBudget budget_;
  std::deque<std::shared_ptr<Copy>> queue_;
  std::vector<std::shared_ptr<Copy>> under_way_;  // at the service, or ended before their original
  int64_t running_ = 0;                           // at the service
  size_t queued_bytes_ = 0;                       // of prompts
  bool yields_ = false;
  TimePoint paused_until_{};  // for the load of its model
  bool ended_ = false;
};

}  // namespace inferneo
