// A runner whose tokens, costs and faults come from a script. Every test of engine, manager and server runs on it.
//
// It is also the judge of the engine's side of the contract in models/model_runner.h. Its KV blocks hold, per token
// slot, the token, its position and a hash of all tokens up to it, written and read through block tables like any
// model's cache; the default token function takes the next token from that hash. A wrong block, a prefix shared wrongly
// or a block reused too early therefore changes tokens, and is reported as a violation with its place. Work is done in
// collect(), as late as the contract allows, so that what a batch points at must really live that long.
//
// Thread: as ModelRunner; violations(), num_steps() and release_hang() from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "models/model_runner.h"

namespace inferneo {

// What a token function sees of the token to be sampled.
struct ScriptedToken {
  uint64_t sequence_id = 0;
  std::span<const Token> prompt;
  int32_t output_index = 0;   // 0: the first output token
  uint64_t context_hash = 0;  // of all tokens before it, as read back from KV memory
  uint64_t seed = 0;          // 0 when greedy
  int32_t vocab_size = 0;
};

struct Script {
  struct Group {
    int32_t block_size = 16;
    int32_t window = 0;
  };
  std::vector<Group> groups = {Group{}};
  bool slots = false;
  int32_t vocab_size = 256;
  int32_t hidden_size = 0;  // 0: it gives no hidden states
  int32_t max_position = 4096;
  std::vector<Token> eos_token_ids = {0};
  int max_in_flight = 1;
  std::string content_key = {};

  // None: default_token. A token that is banned or masked out gives way to the next allowed one.
  std::function<Token(const ScriptedToken&)> next_token;

  Duration step_cost{};  // per step and per token computed
  Duration token_cost{};
  Duration standstill{};  // more, for a step that was not submitted ahead: as long the device waits for the host
  bool measures = false;  // as a GPU does: StepResult::computing is what steps and tokens cost, and no standstill
  std::function<void(Duration)> sleep;  // none: really sleeps

  std::optional<uint64_t> fail_submit_at;  // steps are counted from 1
  std::optional<uint64_t> fail_collect_at;
  std::optional<uint64_t> throw_at;                        // in collect()
  std::optional<uint64_t> hang_at;                         // in collect(), until release_hang()
  std::function<bool(const SequenceStep&)> numeric_error;  // true: this sequence's logits are NaN in this step

  bool check_contract = true;  // false for load tests: only the KV chain is kept, nothing is compared
  std::function<bool(int32_t group, int32_t block)> is_committed;  // none: taken on trust
};

class ScriptedRunner final : public ModelRunner {
 public:
  explicit ScriptedRunner(Script script);
  ~ScriptedRunner() override;

  // The tokens that an undisturbed engine must produce: the reference for any history.
  static uint64_t context_hash(std::span<const Token> tokens);
  // Number k of the row (logits or hidden states) of the last of the tokens with this hash.
  static float row_number(uint64_t context_hash, int32_t k);
  static uint64_t extend_hash(uint64_t hash, Token token);
  static Token default_token(const ScriptedToken& token);  // in [1, vocab): never end-of-sequence 0

  const ModelSpec& spec() const override { return spec_; }
  const KvCacheSpec& kv_spec() const override { return kv_spec_; }
  int max_in_flight() const override { return script_.max_in_flight; }
  std::string content_key() const override { return script_.content_key; }
  Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) override;
  Result<Ticket> submit(const StepBatch& batch) override;
  Result<StepResult> collect(Ticket ticket) override;

  std::vector<std::string> violations() const;
  uint64_t num_steps() const;                                    // submitted
  uint64_t num_steps_ahead() const { return num_steps_ahead_; }  // of them, while another was open; between calls
  size_t num_open() const { return open_.size(); }               // tickets; between calls
  void release_hang();

 private:
  struct KvSlot;
  struct OpenStep;
  KvSlot* slot(const SequenceStep& step, size_t group, int32_t position);
  void check_batch(const StepBatch& batch);
  void check_row(const SequenceStep& step);
  void check_sharing(const StepBatch& batch);
  void check_context(const SequenceStep& step, std::span<const Token> computed);
  Result<std::vector<Token>> resolve_tokens(const SequenceStep& step) const;
  SequenceResult compute(const SequenceStep& step);
  static std::vector<float> rows(std::span<const uint64_t> hashes, int32_t width);
  void sample(const SequenceStep& step, std::span<const uint64_t> hashes, SequenceResult& result) const;
  // After the step's token `index`.
  std::optional<Token> choose(const SequenceStep& step, size_t index, uint64_t context_hash) const;
  Duration pay(const OpenStep& open) const;  // the cost of steps and tokens
  void hang_if_told(uint64_t step);
  void violation(const SequenceStep* step, const std::string& what);

  Script script_;
  ModelSpec spec_;
  KvCacheSpec kv_spec_;
  KvBinding kv_;
  int32_t max_num_seqs_ = 0;
  int32_t max_num_batched_tokens_ = 0;
  bool failed_ = false;                               // in collect()
  std::deque<std::unique_ptr<OpenStep>> open_;        // oldest first
  std::deque<std::pair<Ticket, StepResult>> recent_;  // collected ones that a TokenRef may still name

  mutable std::mutex mutex_;
  std::condition_variable hang_ended_;
  bool hang_released_ = false;
  uint64_t num_steps_ = 0;
  uint64_t num_steps_ahead_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace inferneo
