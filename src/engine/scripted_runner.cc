#include "engine/scripted_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <thread>

#include "base/split_mix.h"

namespace inferneo {
namespace {

uint64_t next_hash(uint64_t x) { return split_mix(x + kGoldenGamma); }

template <typename T>
uint64_t digest(uint64_t hash, std::span<const T> values) {
  hash = next_hash(hash ^ values.size());
  for (T value : values) hash = next_hash(hash ^ static_cast<uint64_t>(value));
  return hash;
}

// Everything that must not change between submit and collect.
uint64_t digest_row(const SequenceStep& step) {
  uint64_t hash = digest(next_hash(step.sequence_id), step.tokens);
  for (std::span<const int32_t> table : step.block_tables) hash = digest(hash, table);
  hash = digest(hash, step.sampling.prompt);
  hash = digest(hash, step.sampling.output);
  hash = digest(hash, step.sampling.banned);
  hash = digest(hash, step.prompt_targets);
  return digest(hash, step.sampling.allowed_mask);
}

size_t num_chosen_from(const SequenceStep& step) {
  return step.want == Want::sample ? 1 : step.want == Want::verify ? static_cast<size_t>(step.num_draft) + 1 : 0;
}

}  // namespace

struct ScriptedRunner::KvSlot {
  uint64_t hash;  // of all tokens up to and with this one
  Token token;
  int32_t position;
};

struct ScriptedRunner::OpenStep {
  Ticket ticket = 0;
  StepBatch batch;  // rows are copied, what they point at is the engine's
  std::vector<uint64_t> digests;
  bool ahead = false;  // submitted before the one before it was collected
};

ScriptedRunner::ScriptedRunner(Script script) : script_(std::move(script)) {
  spec_.architecture = "ScriptedModel";
  spec_.vocab_size = script_.vocab_size;
  spec_.hidden_size = script_.hidden_size;
  spec_.max_position = script_.max_position;
  spec_.eos_token_ids = script_.eos_token_ids;
  spec_.dtype = "none";
  spec_.device = "script";
  kv_spec_.slots = script_.slots;
  for (size_t g = 0; g < script_.groups.size(); ++g) {
    KvGroupSpec group;
    group.layers = {static_cast<int32_t>(g)};
    group.window = script_.groups[g].window;
    group.block_size = script_.groups[g].block_size;
    group.planes = {KvPlaneSpec{static_cast<size_t>(group.block_size) * sizeof(KvSlot), alignof(KvSlot)}};
    kv_spec_.groups.push_back(group);
  }
}

ScriptedRunner::~ScriptedRunner() = default;

uint64_t ScriptedRunner::extend_hash(uint64_t hash, Token token) {
  return next_hash(hash ^ static_cast<uint32_t>(token));
}

uint64_t ScriptedRunner::context_hash(std::span<const Token> tokens) {
  uint64_t hash = 0;
  for (Token token : tokens) hash = extend_hash(hash, token);
  return hash;
}

Token ScriptedRunner::default_token(const ScriptedToken& token) {
  const auto choices = static_cast<uint64_t>(token.vocab_size - 1);
  return 1 + static_cast<Token>(next_hash(token.context_hash ^ next_hash(token.seed)) % choices);
}

Status ScriptedRunner::bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  kv_ = kv;
  max_num_seqs_ = max_num_seqs;
  max_num_batched_tokens_ = max_num_batched_tokens;
  return ok_status();
}

void ScriptedRunner::violation(const SequenceStep* step, const std::string& what) {
  std::lock_guard lock(mutex_);
  violations_.push_back(step == nullptr ? fmt::format("step {}: {}", num_steps_, what)
                                        : fmt::format("step {}, sequence {}, position {}: {}", num_steps_,
                                                      step->sequence_id, step->position, what));
}

std::vector<std::string> ScriptedRunner::violations() const {
  std::lock_guard lock(mutex_);
  return violations_;
}

uint64_t ScriptedRunner::num_steps() const {
  std::lock_guard lock(mutex_);
  return num_steps_;
}

void ScriptedRunner::release_hang() {
  std::lock_guard lock(mutex_);
  hang_released_ = true;
  hang_ended_.notify_all();
}

void ScriptedRunner::hang_if_told(uint64_t step) {
  std::unique_lock lock(mutex_);
  if (script_.hang_at == step) hang_ended_.wait(lock, [this] { return hang_released_; });
}

Duration ScriptedRunner::pay(const OpenStep& open) const {
  Duration cost = script_.step_cost;
  for (const SequenceStep& step : open.batch.sequences)
    cost += script_.token_cost * static_cast<int64_t>(step.tokens.size());
  const Duration passes = cost + (open.ahead ? Duration{} : script_.standstill);
  if (passes == Duration{}) return cost;
  if (script_.sleep) {
    script_.sleep(passes);
  } else {
    std::this_thread::sleep_for(passes);
  }
  return cost;
}

ScriptedRunner::KvSlot* ScriptedRunner::slot(const SequenceStep& step, size_t group, int32_t position) {
  const int32_t block_size = kv_spec_.groups[group].block_size;
  const auto index = static_cast<size_t>(position / block_size);
  if (index >= step.block_tables[group].size()) return nullptr;
  const int32_t block = step.block_tables[group][index];
  if (block < 0 || block >= kv_.capacity_blocks[group]) return nullptr;
  if (script_.is_committed && !script_.is_committed(static_cast<int32_t>(group), block)) return nullptr;
  std::byte* base = kv_.bases[group][0] + static_cast<size_t>(block) * kv_spec_.groups[group].planes[0].bytes_per_block;
  return reinterpret_cast<KvSlot*>(base) + position % block_size;
}

void ScriptedRunner::check_row(const SequenceStep& step) {
  if (step.tokens.empty()) return violation(&step, "no tokens to compute");
  if (step.block_tables.size() != kv_spec_.groups.size()) return violation(&step, "one block table per group expected");
  if (step.want == Want::verify && (step.num_draft < 1 || step.tokens.size() <= static_cast<size_t>(step.num_draft))) {
    return violation(&step, "drafts without a token before them");
  }
  if (step.sampling.params == nullptr || step.sampling.prompt.empty()) violation(&step, "no sampling state");
  const size_t words = (static_cast<size_t>(spec_.vocab_size) + 31) / 32;
  if (!step.sampling.allowed_mask.empty() && step.sampling.allowed_mask.size() != num_chosen_from(step) * words) {
    violation(&step, "not one mask for each token that is chosen");
  }
  const int32_t end = step.position + static_cast<int32_t>(step.tokens.size());
  if (end > spec_.max_position) violation(&step, "beyond the longest context");
  for (size_t g = 0; g < kv_spec_.groups.size(); ++g) {
    const int32_t window = kv_spec_.groups[g].window;
    const int32_t first = window == 0 ? 0 : std::max(0, step.position - window);
    for (int32_t p = first; p < end; ++p) {
      if (slot(step, g, p) == nullptr) {
        return violation(&step, fmt::format("group {} has no committed block for position {}", g, p));
      }
    }
  }
}

// A block that is written in this batch is named by nobody else, neither here nor in a step that is still open.
void ScriptedRunner::check_sharing(const StepBatch& batch) {
  struct Use {
    uint64_t sequence = 0;
    bool shared = false;
    uint64_t writer = 0;
  };
  std::map<std::pair<size_t, int32_t>, Use> uses;
  const auto note = [&](const StepBatch& named) {
    for (const SequenceStep& step : named.sequences) {
      for (size_t g = 0; g < step.block_tables.size(); ++g) {
        const auto first_written = static_cast<size_t>(step.position / kv_spec_.groups[g].block_size);
        for (size_t i = 0; i < step.block_tables[g].size(); ++i) {
          if (step.block_tables[g][i] < 0) continue;
          Use& use = uses[{g, step.block_tables[g][i]}];
          use.shared = use.shared || (use.sequence != 0 && use.sequence != step.sequence_id);
          use.sequence = step.sequence_id;
          if (i >= first_written) use.writer = step.sequence_id;
        }
      }
    }
  };
  for (const auto& open : open_) note(open->batch);
  note(batch);
  for (const auto& [key, use] : uses) {
    if (use.shared && use.writer != 0) {
      violation(nullptr, fmt::format("block {} of group {} is written by sequence {} and named by another", key.second,
                                     key.first, use.writer));
    }
  }
}

void ScriptedRunner::check_batch(const StepBatch& batch) {
  size_t num_tokens = 0;
  for (const SequenceStep& step : batch.sequences) {
    check_row(step);
    num_tokens += step.tokens.size();
  }
  if (batch.sequences.empty()) violation(nullptr, "an empty batch");
  if (batch.sequences.size() > static_cast<size_t>(max_num_seqs_)) violation(nullptr, "more than max_num_seqs");
  if (num_tokens > static_cast<size_t>(max_num_batched_tokens_)) violation(nullptr, "more than max_num_batched_tokens");
  if (open_.size() >= static_cast<size_t>(script_.max_in_flight)) violation(nullptr, "more than max_in_flight tickets");
  check_sharing(batch);
}

Result<Ticket> ScriptedRunner::submit(const StepBatch& batch) {
  uint64_t step = 0;
  {
    std::lock_guard lock(mutex_);
    step = ++num_steps_;
  }
  if (script_.fail_submit_at == step) return make_error(ErrorCode::internal, "scripted failure of submit");
  auto open = std::make_unique<OpenStep>();
  open->ticket = step;
  open->batch = batch;
  open->ahead = !open_.empty();
  if (open->ahead) ++num_steps_ahead_;
  if (script_.check_contract) {
    check_batch(batch);
    if (!violations().empty()) return make_error(ErrorCode::internal, "contract: " + violations().front());
    for (const SequenceStep& row : batch.sequences) open->digests.push_back(digest_row(row));
  }
  open_.push_back(std::move(open));
  return step;
}

Result<StepResult> ScriptedRunner::collect(Ticket ticket) {
  if (open_.empty() || open_.front()->ticket != ticket) {
    violation(nullptr, "tickets collected out of order");
    return make_error(ErrorCode::internal, "contract: tickets collected out of order");
  }
  const std::unique_ptr<OpenStep> open = std::move(open_.front());
  open_.pop_front();
  hang_if_told(ticket);
  if (failed_) return make_error(ErrorCode::internal, "an earlier step has failed");
  failed_ = script_.throw_at == ticket || script_.fail_collect_at == ticket;
  if (script_.throw_at == ticket) throw std::runtime_error("scripted exception");
  if (failed_) return make_error(ErrorCode::internal, "scripted failure of collect");
  StepResult result;
  const Duration computing = pay(*open);
  if (script_.measures) result.computing = computing;
  for (size_t i = 0; i < open->batch.sequences.size(); ++i) {
    const SequenceStep& step = open->batch.sequences[i];
    if (script_.check_contract && digest_row(step) != open->digests[i]) {
      violation(&step, "what the batch points at changed before collect");
    }
    result.sequences.push_back(compute(step));
  }
  recent_.emplace_back(ticket, result);
  if (recent_.size() > static_cast<size_t>(script_.max_in_flight)) recent_.pop_front();
  if (script_.check_contract && !violations().empty()) {
    return make_error(ErrorCode::internal, "contract: " + violations().front());
  }
  return result;
}

Result<std::vector<Token>> ScriptedRunner::resolve_tokens(const SequenceStep& step) const {
  std::vector<Token> tokens(step.tokens.begin(), step.tokens.end());
  if (!step.last_token) return tokens;
  if (step.last_token->ticket == 0) {
    tokens.back() = step.last_token->value;
    return tokens;
  }
  for (const auto& [ticket, result] : recent_) {
    if (ticket != step.last_token->ticket) continue;
    const std::vector<Token>& sampled = result.sequences[static_cast<size_t>(step.last_token->row)].tokens;
    // A row that failed has no token; the engine discards what is computed after it.
    tokens.back() = sampled.empty() ? 0 : sampled.back();
    return tokens;
  }
  return make_error(ErrorCode::internal, "a token reference names a ticket that is gone");
}

void ScriptedRunner::check_context(const SequenceStep& step, std::span<const Token> computed) {
  std::vector<Token> context(step.sampling.prompt.begin(), step.sampling.prompt.end());
  context.insert(context.end(), step.sampling.output.begin(), step.sampling.output.end());
  const auto begin = static_cast<size_t>(step.position);
  if (context.size() < begin) return;  // tokens before this step are not on the host either: the chain alone tells
  context.resize(begin);
  context.insert(context.end(), computed.begin(), computed.end());
  for (size_t g = 0; g < kv_spec_.groups.size(); ++g) {
    const int32_t window = kv_spec_.groups[g].window;
    const int32_t first = window == 0 ? 0 : std::max(0, step.position - window);
    uint64_t hash = 0;
    for (int32_t p = 0; p < static_cast<int32_t>(context.size()); ++p) {
      hash = extend_hash(hash, context[static_cast<size_t>(p)]);
      if (p < first) continue;
      const KvSlot& have = *slot(step, g, p);
      if (have.position != p || have.token != context[static_cast<size_t>(p)] || have.hash != hash) {
        return violation(&step,
                         fmt::format("group {} holds token {} of position {} where token {} of position {} belongs", g,
                                     have.token, have.position, context[static_cast<size_t>(p)], p));
      }
    }
  }
}

SequenceResult ScriptedRunner::compute(const SequenceStep& step) {
  SequenceResult result;
  Result<std::vector<Token>> tokens = resolve_tokens(step);
  if (!tokens.ok()) {
    violation(&step, tokens.error().message);
    return result;
  }
  uint64_t hash = step.position == 0 ? 0 : slot(step, 0, step.position - 1)->hash;
  int32_t position = step.position;
  std::vector<uint64_t> hashes;
  for (Token token : *tokens) {
    hash = extend_hash(hash, token);
    hashes.push_back(hash);
    for (size_t g = 0; g < kv_spec_.groups.size(); ++g) *slot(step, g, position) = KvSlot{hash, token, position};
    ++position;
  }
  if (script_.check_contract) check_context(step, *tokens);
  if (script_.numeric_error && script_.numeric_error(step)) {
    result.error = make_error(ErrorCode::numeric, "scripted: logits are not finite");
    return result;
  }
  for (Token target : step.prompt_targets) {
    TokenLogprobs logprobs{target, -0.5F, {}};
    for (int32_t k = 0; k < step.prompt_top_logprobs; ++k) logprobs.top.emplace_back(k, -1.0F - static_cast<float>(k));
    result.prompt_logprobs.push_back(std::move(logprobs));
  }
  if (step.want == Want::logits) result.logits = rows(hashes, spec_.vocab_size);
  if (step.want == Want::hidden) result.hidden = rows(hashes, spec_.hidden_size);
  if (step.want == Want::sample || step.want == Want::verify) sample(step, hashes, result);
  return result;
}

float ScriptedRunner::row_number(uint64_t hash, int32_t k) {
  return static_cast<float>((hash + static_cast<uint64_t>(k)) % 1021);
}

std::vector<float> ScriptedRunner::rows(std::span<const uint64_t> hashes, int32_t width) {
  std::vector<float> numbers;
  for (const uint64_t hash : hashes) {
    for (int32_t k = 0; k < width; ++k) numbers.push_back(row_number(hash, k));
  }
  return numbers;
}

// hashes[i] is of all tokens up to the i-th of the step. After drafts, as long as they are what would be sampled.
void ScriptedRunner::sample(const SequenceStep& step, std::span<const uint64_t> hashes, SequenceResult& result) const {
  const size_t num_draft = step.want == Want::verify ? static_cast<size_t>(step.num_draft) : 0;
  const size_t first = hashes.size() - 1 - num_draft;
  for (size_t i = 0; i <= num_draft; ++i) {
    const std::optional<Token> token = choose(step, first + i, hashes[first + i]);
    if (!token) {
      result.error = make_error(ErrorCode::numeric, "scripted: no token is allowed");
      return;
    }
    result.tokens.push_back(*token);
    if (step.sampling.params->logprobs) {
      TokenLogprobs logprobs{*token, -0.25F, {}};
      for (int k = 0; k < *step.sampling.params->logprobs; ++k) {
        logprobs.top.emplace_back((*token + k) % spec_.vocab_size, -0.25F - static_cast<float>(k));
      }
      result.logprobs.push_back(std::move(logprobs));
    }
    if (i < num_draft && *token != step.tokens[first + i + 1]) return;
  }
}

std::optional<Token> ScriptedRunner::choose(const SequenceStep& step, size_t index, uint64_t hash) const {
  ScriptedToken context;
  context.sequence_id = step.sequence_id;
  context.prompt = step.sampling.prompt;
  context.output_index = step.position + static_cast<int32_t>(index + 1 - step.sampling.prompt.size());
  context.context_hash = hash;
  context.seed = step.sampling.params->temperature == 0.0F ? 0 : step.sampling.seed;
  context.vocab_size = spec_.vocab_size;
  const Token wanted = script_.next_token ? script_.next_token(context) : default_token(context);
  const size_t words = (static_cast<size_t>(spec_.vocab_size) + 31) / 32;
  std::span<const uint32_t> mask = step.sampling.allowed_mask;
  if (!mask.empty()) mask = mask.subspan((index + num_chosen_from(step) - step.tokens.size()) * words, words);
  for (int32_t k = 0; k < spec_.vocab_size; ++k) {
    const Token token = (wanted + k) % spec_.vocab_size;
    if (std::ranges::find(step.sampling.banned, token) != step.sampling.banned.end()) continue;
    if (!mask.empty() && (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1U) == 0) continue;
    return token;
  }
  return std::nullopt;
}

}  // namespace inferneo
