#include "engine/draft_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "base/log.h"
#include "engine/step_batch.h"

namespace inferneo {

DraftModel::DraftModel(std::unique_ptr<ModelRunner> runner, std::unique_ptr<KvMemory> memory,
                       const KvCacheConfig& cache, const DraftLimits& limits, const Clock& clock)
    : memory_(std::move(memory)), runner_(std::move(runner)), kv_(cache, *memory_), limits_(limits), clock_(clock) {}

DraftModel::~DraftModel() = default;

DraftModel::Mirror* DraftModel::find(const Sequence& sequence) {
  const auto found = mirrors_.find(sequence.id);
  return found == mirrors_.end() ? nullptr : &found->second;
}

int32_t DraftModel::room(const Sequence& sequence) const {
  if (failed_ || sequence.draft_state == nullptr || sequence.draft_state->model_refused) return 0;
  return std::max(0, limits_.context - sequence.num_tokens());
}

int32_t DraftModel::behind(const Sequence& sequence) {
  Mirror* const mirror = find(sequence);
  if (mirror == nullptr) return sequence.num_tokens();
  synchronize(*mirror, sequence);
  return sequence.num_tokens() - mirror->sequence.num_computed;
}

// What was guessed wrong is forgotten; its keys and values are overwritten.
void DraftModel::synchronize(Mirror& mirror, const Sequence& original) {
  Sequence& own = mirror.sequence;
  const auto settled = static_cast<std::ptrdiff_t>(own.num_settled);
  const auto [differs, rest] = std::mismatch(own.tokens.begin() + settled, own.tokens.end(),
                                             original.tokens.begin() + settled, original.tokens.end());
  own.tokens.erase(differs, own.tokens.end());
  const int32_t num_equal = own.num_tokens();
  own.tokens.insert(own.tokens.end(), rest, original.tokens.end());
  // The last token is computed anew where a step that should have verified the guesses never was: a guess follows it.
  own.num_computed = std::min({own.num_computed, num_equal, own.num_tokens() - 1});
  kv_.settle(own, own.num_computed);
}

bool DraftModel::knows(std::span<const Token> tokens) const {
  const int32_t vocab = runner_->spec().vocab_size;
  return vocab >= limits_.vocab_size || std::ranges::all_of(tokens, [&](Token token) { return token < vocab; });
}

// A draft's rows may be narrower than those of its model, which pads them otherwise.
bool DraftModel::knows_all_of(const Sequence& original) const {
  const RequestState& request = *original.request;
  const auto& biases = request.request.sampling.logit_bias;
  return knows(original.tokens) && knows(request.ending_tokens) &&
         std::ranges::all_of(biases, [&](const auto& bias) { return knows(std::span(&bias.first, 1)); });
}

// A sibling whose blocks can be shared when there is no prefix cache.
const Sequence* DraftModel::find_donor(const Sequence& original) {
  for (const auto& sibling : original.request->samples) {
    const Mirror* const mirror = sibling.get() == &original ? nullptr : find(*sibling);
    if (mirror != nullptr && mirror->sequence.prompt_done()) return &mirror->sequence;
  }
  return nullptr;
}

void DraftModel::open(Mirror& mirror, Sequence& original) {
  Sequence& own = mirror.sequence;
  own.id = original.id;
  own.request = original.request;
  own.sample = original.sample;
  own.seed = original.seed;
  own.state = SequenceState::running;
  own.prompt_size = original.prompt_size;
  own.max_output = original.max_output;
  own.tokens.reserve(static_cast<size_t>(original.prompt_size + original.max_output));
  own.tokens = original.tokens;  // the capacity stays
  mirror.params = original.request->request.sampling;
  mirror.params.logprobs.reset();
  mirror.original = &original;
  kv_.acquire_prefix(own, find_donor(original));
}

DraftModel::Mirror* DraftModel::prepare(Sequence& original) {
  if (room(original) == 0) return nullptr;
  Mirror* mirror = find(original);
  if (mirror == nullptr) {
    if (!knows_all_of(original)) {
      refuse(original);
      return nullptr;
    }
    mirror = &mirrors_[original.id];
    open(*mirror, original);
  }
  const auto num_read = static_cast<size_t>(mirror->sequence.num_settled);
  if (!knows(std::span(original.tokens).subspan(num_read))) {
    refuse(original);
    return nullptr;
  }
  synchronize(*mirror, original);
  return mirror;
}

// For good: what does not fit now would be read again and again.
void DraftModel::refuse(Sequence& original) {
  original.draft_state->model_refused = true;
  forget(original);
}

void DraftModel::forget(const Sequence& sequence) {
  const auto found = mirrors_.find(sequence.id);
  if (found == mirrors_.end()) return;
  kv_.release(found->second.sequence);
  mirrors_.erase(found);
}

bool DraftModel::yield() {
  for (auto& [id, mirror] : mirrors_) kv_.release(mirror.sequence);
  mirrors_.clear();
  const size_t before = kv_.committed_bytes();
  kv_.shrink_to_minimum();
  return kv_.committed_bytes() < before;
}

void DraftModel::fail(const Error& error) {
  log_error("a draft model failed, and guesses no more: {}", error.message);
  failed_ = true;
  yield();
}

void DraftModel::propose(std::span<const DraftWish> wishes) {
  std::vector<Mirror*> far;
  std::vector<Mirror*> near;
  int32_t left = kMaxTokens;  // of the first guesses' step
  for (const DraftWish& wish : wishes) {
    Mirror* const mirror = prepare(*wish.sequence);
    if (mirror == nullptr) continue;
    const std::vector<Token>& drafts = wish.sequence->drafts;
    const auto num_known = static_cast<int32_t>(drafts.size());
    mirror->num_left = std::min(wish.num_drafts, room(*wish.sequence) - num_known);
    const int32_t to_read = mirror->sequence.num_tokens() - mirror->sequence.num_computed;
    if (to_read > kNear) {
      far.push_back(mirror);
    } else if (mirror->num_left > 0 && to_read + num_known <= left && knows(drafts)) {
      left -= to_read + num_known;
      mirror->sequence.tokens.insert(mirror->sequence.tokens.end(), drafts.begin(), drafts.end());
      near.push_back(mirror);
    }
  }
  if (!far.empty()) read(far);
  if (!near.empty() && !failed_) guess(near);
}

// All but the last token, which is read with the first guess.
void DraftModel::read(std::vector<Mirror*>& mirrors) {
  std::vector<ScheduledSequence> rows;
  std::vector<Mirror*> readers;
  int32_t left = kMaxTokens;
  for (Mirror* mirror : mirrors) {
    Sequence& own = mirror->sequence;
    const int32_t chunk = std::min(left, own.num_tokens() - own.num_computed - 1);
    if (chunk == 0 || std::ssize(rows) == kMaxSequences) break;
    if (!kv_.allocate(own, chunk)) {
      refuse(*mirror->original);
      continue;
    }
    rows.push_back({&own, own.num_computed, chunk, false, 0});
    readers.push_back(mirror);
    left -= chunk;
  }
  if (rows.empty()) return;
  Duration time{};
  const std::optional<StepResult> result = compute(rows, readers, time);
  if (!result) return;
  cost_.read(kMaxTokens - left, time);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (result->sequences[i].error) {
      refuse(*readers[i]->original);
      continue;
    }
    Sequence& own = *rows[i].sequence;
    own.num_computed += rows[i].num_tokens;
    kv_.settle(own, own.num_computed);
  }
}

void DraftModel::guess(std::vector<Mirror*>& mirrors) {
  std::erase_if(mirrors, [&](Mirror* mirror) {
    Sequence& own = mirror->sequence;
    if (kv_.allocate(own, own.num_tokens() - own.num_computed + mirror->num_left - 1)) return false;
    refuse(*mirror->original);
    return true;
  });
  if (mirrors.size() > static_cast<size_t>(kMaxSequences)) mirrors.resize(static_cast<size_t>(kMaxSequences));
  for (;;) {
    std::erase_if(mirrors, [&](Mirror* mirror) { return !constrain(*mirror); });
    if (mirrors.empty()) return;
    std::vector<ScheduledSequence> rows;
    int32_t num_tokens = 0;
    for (Mirror* mirror : mirrors) {
      Sequence& own = mirror->sequence;
      const int32_t wanted = own.num_tokens() - own.num_computed;
      rows.push_back({&own, own.num_computed, wanted, true, 0});
      num_tokens += wanted;
    }
    Duration time{};
    const std::optional<StepResult> result = compute(rows, mirrors, time);
    if (!result) return;
    cost_.guessed(num_tokens, time);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].sequence->num_computed += rows[i].num_tokens;
      take_guess(*mirrors[i], result->sequences[i]);
    }
    std::erase_if(mirrors, [](const Mirror* mirror) { return mirror->num_left == 0; });
  }
}

// What the grammar allows behind the guesses so far, in words of this model's rows; false: nothing can be guessed. The
// masks are those that the guesses will be verified with.
bool DraftModel::constrain(Mirror& mirror) const {
  Sequence& original = *mirror.original;
  if (original.grammar == nullptr) return true;
  const auto num_guessed = static_cast<int32_t>(original.drafts.size());
  const Result<int32_t> filled = original.grammar->fill_masks(original.drafts);
  if (!filled.ok() || *filled < num_guessed) {  // what is wrong shows when they are verified
    original.drafts.resize(static_cast<size_t>(filled.ok() ? *filled : 0));
    return false;
  }
  const std::span<const uint32_t> mask = original.grammar->mask_behind(num_guessed);
  const auto vocab = static_cast<size_t>(runner_->spec().vocab_size);
  mirror.mask.assign((vocab + 31) / 32, 0);
  std::ranges::copy(mask.first(std::min(mask.size(), mirror.mask.size())), mirror.mask.begin());
  if (vocab % 32 != 0) mirror.mask.back() &= (uint32_t{1} << (vocab % 32)) - 1;
  return true;
}

void DraftModel::take_guess(Mirror& mirror, const SequenceResult& result) {
  --mirror.num_left;
  const std::vector<Token>& ending = mirror.original->request->ending_tokens;
  // Numbers that are none, or nothing to choose from: the model itself may find something.
  if (result.error || result.tokens.size() != 1 || result.tokens[0] < 0 || result.tokens[0] >= limits_.vocab_size) {
    mirror.num_left = 0;
    return;
  }
  const Token token = result.tokens[0];
  std::vector<Token>& drafts = mirror.original->drafts;
  drafts.push_back(token);
  SequenceGrammar* const grammar = mirror.original->grammar.get();
  if (grammar != nullptr && grammar->walk(drafts) < std::ssize(drafts)) {  // it ends there
    drafts.pop_back();
    mirror.num_left = 0;
    return;
  }
  mirror.sequence.tokens.push_back(token);
  if (std::ranges::find(ending, token) != ending.end()) mirror.num_left = 0;  // nothing follows it
}

std::optional<StepResult> DraftModel::compute(const std::vector<ScheduledSequence>& rows,
                                              const std::vector<Mirror*>& mirrors, Duration& time) {
  const TimePoint began = clock_.now();
  const std::unique_ptr<InFlightStep> step = build_step(rows, kv_.config().groups);
  for (size_t i = 0; i < mirrors.size(); ++i) {
    SamplingInput& sampling = step->batch.sequences[i].sampling;
    sampling.params = &mirrors[i]->params;
    if (rows[i].sample && mirrors[i]->original->grammar != nullptr) sampling.allowed_mask = mirrors[i]->mask;
  }
  const auto run = [&]() -> Result<StepResult> {
    try {
      ASSIGN_OR_RETURN(step->ticket, runner_->submit(step->batch));
      return runner_->collect(step->ticket);
    } catch (const std::exception& e) {
      return make_error(ErrorCode::internal, fmt::format("its runner threw an exception: {}", e.what()));
    } catch (...) {
      return make_error(ErrorCode::internal, "its runner threw something that is no exception");
    }
  };
  Result<StepResult> result = run();
  if (result.ok() && result->sequences.size() != rows.size()) {
    result = make_error(ErrorCode::internal, "its runner returned a result of another shape than its batch");
  }
  if (!result.ok()) {
    fail(result.error());
    return std::nullopt;
  }
  time = result->computing.value_or(clock_.now() - began);
  return std::move(result).value();
}

Status DraftModel::check_integrity() const {
  RETURN_IF_ERROR(kv_.check_integrity());
  std::vector<std::vector<int32_t>> references;  // [groups][blocks]
  for (int32_t g = 0; g < kv_.num_groups(); ++g) references.emplace_back(static_cast<size_t>(kv_.pool(g).total()), 0);
  for (const auto& [id, mirror] : mirrors_) {
    if (mirror.original->state != SequenceState::running) {
      return make_error(ErrorCode::internal, fmt::format("sequence {} does not run and has a mirror", id));
    }
    const std::vector<std::vector<BlockId>>& tables = mirror.sequence.block_tables;
    for (size_t g = 0; g < tables.size(); ++g) {
      for (const BlockId block : tables[g]) {
        if (block != kNoBlock) ++references[g][static_cast<size_t>(block)];
      }
    }
  }
  for (int32_t g = 0; g < kv_.num_groups(); ++g) {
    for (BlockId block = 0; block < kv_.pool(g).total(); ++block) {
      if (references[static_cast<size_t>(g)][static_cast<size_t>(block)] == kv_.pool(g).ref_count(block)) continue;
      return make_error(ErrorCode::internal,
                        fmt::format("block {} of group {} of the draft's cache miscounts its references", block, g));
    }
  }
  return ok_status();
}

}  // namespace inferneo
