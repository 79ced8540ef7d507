// The one seam that every model format implements (native CPU, CUDA, ONNX, TensorRT, scripted).
//
// Contract
// - A runner never schedules, never allocates KV memory and never knows requests. The engine never knows formats or
//   devices. The block accounting above this seam does not know what the bytes mean.
// - Asynchronous: submit() may return before the work is done; collect() waits for that ticket. Tickets are collected
//   in the order in which they were submitted. At most max_in_flight() tickets are open.
// - Everything a StepBatch points at (token spans, block tables, sampling inputs, masks) stays alive and unchanged
//   until collect() of its ticket has returned; the KV blocks that it names are not reused before that either.
// - Sampling is on this side of the seam, so that a GPU never ships logits to the host; runners whose logits are on the
//   host share models/sampling.
// - Thread: all calls for one runner come from one engine thread, except spec() and kv_spec(), which are immutable.
// - Errors: submit() refuses a malformed batch (a bug above it); collect() returns a per-sequence error for what
//   concerns one sequence (NaN logits), and fails as a whole only when the model can no longer be used. A failed
//   collect() closes its ticket; those after it are still waited for with collect(), whatever it returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "tensor/memory.h"

namespace inferneo {

struct ModelSpec {
  std::string architecture;          // "LlamaForCausalLM"
  int32_t vocab_size = 0;            // width of a logits row (may exceed the tokenizer's vocabulary)
  int32_t hidden_size = 0;           // width of a row of Want::hidden; 0: this runner gives none
  int32_t max_position = 0;          // the longest context that the model defines
  std::vector<Token> eos_token_ids;  // end generation (generation_config.json before config.json)
  std::optional<Token> bos_token_id;
  size_t weight_bytes = 0;  // resident bytes of the weights
  // How this load came to them: "packed" by it, "mapped" as an earlier load packed them, "shared" with another model.
  std::string weight_origin = "packed";
  std::string dtype;             // of the layers' weights in memory: "bf16", "int8"
  std::string stored_dtype;      // of the checkpoint's
  double bits_per_weight = 0.0;  // of everything that is resident; 0: not known
  std::string device;            // "cpu (avx512_bf16)"
};

// One kind of block. Layers with the same attention window share a group; each group has its own pool of block ids and
// each sequence one block table per group. Block b of a plane lies at plane base + b * bytes_per_block.
struct KvPlaneSpec {
  size_t bytes_per_block = 0;
  size_t alignment = 64;
};
struct KvGroupSpec {
  std::vector<int32_t> layers;
  int32_t window = 0;       // tokens that a layer of this group looks back; 0: all
  int32_t block_size = 16;  // tokens per block; a slot format says max_model_len: one block is a whole sequence
  std::vector<KvPlaneSpec> planes;
};
struct KvCacheSpec {
  std::vector<KvGroupSpec> groups;  // at least one
  bool slots = false;               // a block is a whole sequence's buffer
};

// Where the engine put the planes: bases[group][plane]. The range is reserved for `capacity_blocks` blocks; pages are
// committed as the pool grows, and a runner touches only blocks named in a batch.
struct KvBinding {
  std::vector<std::vector<std::byte*>> bases;
  std::vector<int32_t> capacity_blocks;  // per group
};

using Ticket = uint64_t;

// A token that is not on the host yet: row `row` of ticket `ticket` (running ahead). ticket 0: `value` is the token.
struct TokenRef {
  Token value = 0;
  Ticket ticket = 0;
  int32_t row = 0;
};

// What the sampler needs to know about a sequence. Spans point into the sequence and outlive the ticket.
struct SamplingInput {
  const SamplingParams* params = nullptr;
  std::span<const Token> prompt;  // for repetition penalty
  std::span<const Token> output;  // generated so far
  uint64_t seed = 0;              // with the position, all the randomness there is
  // Bit t set: token t may be chosen; empty: all may. [ceil(vocab / 32)] words, with Want::verify [num_draft + 1] times
  // that.
  std::span<const uint32_t> allowed_mask;
  std::span<const Token> banned;  // end-of-sequence and stop tokens while min_tokens is not reached
};

enum class Want : uint8_t {
  nothing,  // fill the cache only (a chunk of a prompt)
  sample,   // one token after the last position
  logits,   // logits rows for every token of this step, on the host
  hidden,   // the same of hidden states, after the final norm; only where ModelSpec::hidden_size says so
  verify,   // rows for the last num_draft + 1 tokens: accept drafts, then sample one more
};

struct SequenceStep {
  uint64_t sequence_id = 0;                                // stable for a sequence's life; slot formats key on it
  std::span<const Token> tokens;                           // [num_tokens] to compute now
  std::optional<TokenRef> last_token;                      // replaces tokens.back() when it is still on the device
  int32_t position = 0;                                    // of tokens[0]; that many tokens are already in the cache
  std::span<const std::span<const int32_t>> block_tables;  // [groups][blocks]; for windowed groups, freed blocks are -1
  Want want = Want::nothing;
  int32_t num_draft = 0;   // for Want::verify: the last num_draft tokens are drafts
  SamplingInput sampling;  // for sample and verify
  // Logprobs of prompt tokens: for each token of this step that has a successor in `prompt_targets`, its logprob and
  // this many best. prompt_targets[i] is the token after tokens[i]; empty: not wanted.
  std::span<const Token> prompt_targets;
  int32_t prompt_top_logprobs = 0;
};

struct StepBatch {
  std::vector<SequenceStep> sequences;
  bool idle = false;  // nobody waits for it: where devices take turns, it comes last
};

struct TokenLogprobs {
  Token token = 0;
  float logprob = 0.0F;                      // natural log, of the distribution before temperature and filters
  std::vector<std::pair<Token, float>> top;  // best first; as many as asked for
};

struct SequenceResult {
  std::vector<Token> tokens;                   // sampled; more than one after an accepted draft; empty for nothing
  std::vector<TokenLogprobs> logprobs;         // one per sampled token when asked for
  std::vector<TokenLogprobs> prompt_logprobs;  // one per prompt target
  std::vector<float> logits;                   // [num_tokens, vocab_size] for Want::logits
  std::vector<float> hidden;                   // [num_tokens, hidden_size] for Want::hidden
  std::optional<Error> error;                  // this sequence only (numeric)
};

struct StepResult {
  std::vector<SequenceResult> sequences;  // parallel to the batch
  // That the device worked at it, the wait for its turn left out; none: not known.
  std::optional<Duration> computing = {};
};

class ModelRunner;

// What is left in the host's memory of a runner whose model has left its device: what it needs to compute there again
// without a file, weights in the layout that they had. It holds nothing of the device. One owner thread.
class SleepingRunner {
 public:
  virtual ~SleepingRunner() = default;
  virtual size_t weight_bytes() const = 0;  // that lie in the host's memory
  virtual size_t pinned_bytes() const = 0;  // of these, in memory that the device reads at its full rate
  // A runner as load made it, before bind(): the same numbers to the bit. Its weights may still be on their way; they
  // are there when bind() has returned, and until then this stays. An error leaves this as it was and nothing booked.
  virtual Result<std::unique_ptr<ModelRunner>> wake() = 0;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const ModelSpec& spec() const = 0;
  virtual const KvCacheSpec& kv_spec() const = 0;
  virtual int max_in_flight() const { return 1; }
  // Names all that the bytes of a KV block depend on besides the tokens up to its end: weights, description, types,
  // layout, instruction set. Equal keys, equal bytes, in another process as well. Empty: not known, and no block of
  // this runner is kept outside of its memory.
  virtual std::string content_key() const { return {}; }
  // Where the cache's planes lie; outlives the runner.
  virtual PageSource& kv_pages() { return host_pages(); }
  // Workspace for steps of at most this size is allocated (and booked) here, once, before the first submit.
  virtual Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) = 0;
  virtual Result<Ticket> submit(const StepBatch& batch) = 0;
  virtual Result<StepResult> collect(Ticket ticket) = 0;

  // Bytes of the host's memory that sleep() takes; 0: this runner computes where its weights would sleep.
  virtual size_t sleep_bytes() const { return 0; }
  // With no ticket open: copies what is needed into the host's memory. Afterwards this can only be destroyed, which
  // gives back all that it has of the device. After an error it is as it was. out_of_memory: of the host's;
  // unsupported; unavailable: the device is lost.
  virtual Result<std::unique_ptr<SleepingRunner>> sleep() {
    return make_error(ErrorCode::unsupported,
                      "the model computes on the CPU, where its weights are in host memory anyway");
  }
};

}  // namespace inferneo
