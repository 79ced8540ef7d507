// Guesses tokens with a second, smaller model of the same vocabulary (Leviathan et al. 2023, Chen et al. 2023).
//
// Each sequence that it guesses for has a mirror here: the same tokens, in a cache of the draft's own, with block pools
// and a prefix cache of its own. A mirror reads what its sequence has said since the last time, then the draft says the
// next tokens one by one, all mirrors in one batch.
//
// The draft samples with its sequence's parameters, seed and positions: with the very random numbers that the
// verification draws with. Where both models' distributions are equal so are the tokens, and where they are near the
// tokens mostly are (a coupling by shared randomness: Daliri, Musco and Suresh 2024, "Coupling without Communication
// and Drafter-Invariant Speculative Decoding"). A guess is a token and no distribution, so nothing but tokens crosses
// the seam, and whatever the draft says, the output is that of plain decoding, token for token.
//
// Ownership: owns its runner, the memory of its cache and the mirrors. One thread: the engine's. Nothing of it is in
// flight between two calls.
// Errors: none concern the sequences. What fails (memory, a token that the draft does not know, numbers that are none)
// ends the guesses for that sequence; a runner that fails as a whole ends all of them (failed()).
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/draft_cost.h"
#include "engine/kv_cache_manager.h"
#include "engine/scheduler.h"
#include "models/model_runner.h"

namespace inferneo {

struct DraftWish {
  Sequence* sequence = nullptr;
  int32_t num_drafts = 0;  // 0: only read
};

struct DraftLimits {
  int32_t context = 0;     // tokens of one mirror
  int32_t vocab_size = 0;  // of the model that it guesses for; tokens from there on are no guesses
};

class DraftModel {
 public:
  static constexpr int32_t kMaxSequences = StepCost::kMaxTokens;
  static constexpr int32_t kMaxTokens = 256;  // of one of its steps
  // With so many tokens to read a mirror guesses at once; with more it reads them first, in a step of their own.
  static constexpr int32_t kNear = kMaxTokens / kMaxSequences;

  // The runner is bound to the memory, for kMaxSequences and kMaxTokens.
  DraftModel(std::unique_ptr<ModelRunner> runner, std::unique_ptr<KvMemory> memory, const KvCacheConfig& cache,
             const DraftLimits& limits, const Clock& clock);
  ~DraftModel();

  bool failed() const { return failed_; }
  // Guesses that its context leaves room for; 0: none, and none ever for this sequence.
  int32_t room(const Sequence& sequence) const;
  // Tokens that it has not read of this sequence, at least 1.
  int32_t behind(const Sequence& sequence);
  const DraftCost& cost() const { return cost_; }

  // Puts guesses into Sequence::drafts, behind those that are there, at most as many as wished for. A mirror that is
  // far behind reads a part instead; all read kMaxTokens together. The sequences have at least one token of output and
  // no step in flight. Under a grammar it says what that allows.
  void propose(std::span<const DraftWish> wishes);

  // The sequence has ended or given its blocks back.
  void forget(const Sequence& sequence);
  // All mirrors go, and the memory of their blocks with them. False: it had none.
  bool yield();

  const KvCacheManager& kv() const { return kv_; }
  ModelRunner& runner() { return *runner_; }
  // Mirrors are of sequences that run, references of blocks equal those in their tables, and the KV manager's own laws.
  Status check_integrity() const;

 private:
  struct Mirror {
    Sequence sequence;           // with the request of the one that it mirrors
    SamplingParams params;       // the same, but for what says more about a token than which it is
    int32_t num_left = 0;        // guesses to make in this round
    std::vector<uint32_t> mask;  // [ceil(vocab / 32)] of the draft, behind its guesses, under a grammar
    Sequence* original = nullptr;
  };
  Mirror* find(const Sequence& sequence);
  Mirror* prepare(Sequence& original);  // null: it cannot be guessed for
  void open(Mirror& mirror, Sequence& original);
  const Sequence* find_donor(const Sequence& original);
  void synchronize(Mirror& mirror, const Sequence& original);
  bool knows(std::span<const Token> tokens) const;
  bool knows_all_of(const Sequence& original) const;
  void refuse(Sequence& original);
  void read(std::vector<Mirror*>& mirrors);
  void guess(std::vector<Mirror*>& mirrors);
  bool constrain(Mirror& mirror) const;
  void take_guess(Mirror& mirror, const SequenceResult& result);
  // One step of the runner, which it waits for; none: it has failed.
  std::optional<StepResult> compute(const std::vector<ScheduledSequence>& rows, const std::vector<Mirror*>& mirrors,
                                    Duration& time);
  void fail(const Error& error);

  std::unique_ptr<KvMemory> memory_;  // outlives the runner, which points into it
  std::unique_ptr<ModelRunner> runner_;
  KvCacheManager kv_;
  DraftLimits limits_;
  const Clock& clock_;
  DraftCost cost_;
  bool failed_ = false;
  std::unordered_map<uint64_t, Mirror> mirrors_;  // by the sequence's id; mirrors do not move
};

}  // namespace inferneo
