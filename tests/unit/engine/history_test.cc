// Seeded random histories of a whole step loop: submit, cancel, stop, deadlines, preemption, prefix hits, tiny pools,
// windows, slots, memory that comes and goes, running ahead, a level below the prefix cache. After every step all laws
// hold; at the end every request has had its terminal event, nothing is referenced, and every token is what an
// undisturbed run would have given. INFERNEO_SOAK_SCALE scales the count of the soak build (1: full).
#include <array>
#include <cstdlib>
#include <random>

#include "engine_fixture.h"
#include "scripted_grammar.h"

#ifndef INFERNEO_HISTORIES
#define INFERNEO_HISTORIES 400
#endif

namespace inferneo {
namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int between(int low, int high) { return low + static_cast<int>(engine_() % static_cast<uint64_t>(high - low + 1)); }
  bool chance(int percent) { return between(1, 100) <= percent; }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<int>(values.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

// A second model for some of them: the same, another one, one of a narrower vocabulary, or one that fails; with other
// blocks and windows, and with little memory for some.
void add_draft(Random& random, HarnessOptions& o) {
  Script draft;
  draft.vocab_size = random.chance(80) ? o.script.vocab_size : std::max(2, o.script.vocab_size / 2);
  draft.eos_token_ids = o.script.eos_token_ids;
  draft.step_cost = std::chrono::microseconds(random.pick({1, 100, 2000}));
  const int kind = random.between(0, 3);
  if (kind == 1) draft.next_token = [](const ScriptedToken& t) { return t.output_index % t.vocab_size; };
  if (kind == 2) {  // right most of the time
    draft.next_token = [](const ScriptedToken& t) {
      return t.output_index % 5 == 2 ? 1 : ScriptedRunner::default_token(t);
    };
  }
  if (random.chance(10)) draft.fail_collect_at = static_cast<uint64_t>(random.between(1, 60));
  if (random.chance(10)) draft.throw_at = static_cast<uint64_t>(random.between(1, 60));
  if (random.chance(15)) {
    draft.numeric_error = [](const SequenceStep& s) { return s.sequence_id % 5 == 1 && s.position > 12; };
  }
  draft.slots = o.script.slots;
  draft.groups.clear();
  o.draft_capacity.clear();
  const int groups = draft.slots ? 1 : random.between(1, 2);
  for (int g = 0; g < groups; ++g) {
    Script::Group group{draft.slots ? 64 : random.pick({1, 4, 16}), 0};
    if (!draft.slots && random.chance(25)) group.window = random.pick({1, 5, 20});
    draft.groups.push_back(group);
    o.draft_capacity.push_back(random.chance(30) ? random.between(1, 12) : random.between(60, 400));
  }
  o.draft_context = random.chance(70) ? o.context_limit : random.between(5, o.context_limit);
  o.draft = draft;
}

HarnessOptions random_options(Random& random) {
  HarnessOptions o;
  o.script.vocab_size = random.pick({4, 20, 256});
  o.script.eos_token_ids = {random.chance(50) ? 3 : 0};
  o.script.max_in_flight = random.between(1, 3);
  o.script.step_cost = std::chrono::milliseconds(1);
  if (random.chance(15)) {
    o.script.numeric_error = [](const SequenceStep& s) { return s.sequence_id % 7 == 3 && s.position > 10; };
  }
  o.scheduler.max_num_seqs = random.between(1, 6);
  o.scheduler.max_num_batched_tokens = std::max(o.scheduler.max_num_seqs, random.pick({6, 17, 64}));
  o.scheduler.max_prefill_tokens_beside_decode = random.pick({1, 8, 512});
  o.scheduler.prefill_pack_tokens = random.pick({1, 16, 256});
  if (random.chance(30)) o.inter_token_target = std::chrono::milliseconds(random.pick({0, 2, 25}));
  if (random.chance(50)) o.speculation.max_draft = random.between(1, 9);
  o.prefix_caching = random.chance(70);
  o.grow_step = random.pick({1, 3, 8});
  if (random.chance(20)) o.hash = [](uint64_t, std::span<const Token> t) { return uint64_t{t.size() % 3}; };
  const bool slots = random.chance(10);
  o.context_limit = random.between(20, 60);
  const int32_t block_size = slots ? 64 : random.pick({1, 2, 4, 16});
  const int groups = slots ? 1 : random.between(1, 3);
  if (slots) o.prefix_caching = false;
  o.script.slots = slots;
  o.script.groups.clear();
  o.capacity.clear();
  for (int g = 0; g < groups; ++g) {
    Script::Group group{block_size, 0};
    if (!slots && random.chance(10)) group.block_size = 8;  // groups that differ: no sharing
    if (!slots && (g > 0 || random.chance(20))) group.window = random.pick({1, 3, 8, 20});
    o.script.groups.push_back(group);
    KvGroupConfig config;
    config.block_size = group.block_size;
    config.window = group.window;
    const int32_t in_flight = o.scheduler.max_num_batched_tokens * o.script.max_in_flight;
    const int32_t least = max_blocks_held(config, o.context_limit, in_flight);
    o.capacity.push_back(least + (random.chance(40) ? 0 : random.between(1, 3 * least)));
  }
  if (o.speculation.max_draft > 0 && random.chance(60)) add_draft(random, o);
  return o;
}

class History {
 public:
  explicit History(uint64_t seed)
      : random_(seed),
        other_random_(~seed),
        has_grammars_(other_random_.chance(35)),
        harness_(with_tier(random_options(random_))) {
    for (int i = 0; i < 4; ++i) {
      prefixes_.push_back({});
      for (int k = 0; k < 40; ++k) prefixes_.back().push_back(random_.between(0, vocab() - 1));
    }
    memory_comes_and_goes_ = random_.chance(15);
  }

  uint64_t fetched_tokens() const { return harness_.loop->scheduler().fetched_hits(); }

  bool has_draft() const { return harness_.draft != nullptr; }
  uint64_t accepted_under_grammars() const {
    uint64_t accepted = 0;
    for (const Sent& sent : sent_) {
      if (sent.request.grammar) accepted += static_cast<uint64_t>(sent.sink->outcome.stats.accepted_tokens);
    }
    return accepted;
  }
  uint64_t accepted_drafts() const {
    EngineStats stats;
    harness_.loop->fill_stats(stats);
    return stats.speculation.total().accepted_tokens;
  }

  void run() {
    const int num_events = random_.between(20, 120);
    for (int i = 0; i < num_events && !testing::Test::HasFailure(); ++i) event();
    harness_.memory->limit = 1 << 30;
    int steps = 0;
    while (harness_.loop->num_live() + harness_.loop->num_in_flight() > 0 && !testing::Test::HasFailure()) {
      harness_.step_and_check();
      ASSERT_LT(++steps, 20000) << "no progress";
    }
    if (testing::Test::HasFailure()) return;
    harness_.check_idle();
    for (const Sent& sent : sent_) check(sent);
    harness_.kv->shrink_to_minimum();
    harness_.check();
    for (int32_t blocks : harness_.memory->committed) EXPECT_EQ(blocks, 0);
    if (harness_.kv->prefix_cache() != nullptr) {
      EXPECT_EQ(harness_.kv->prefix_cache()->num_nodes(), 0U);
    }
    if (harness_.draft == nullptr) return;
    harness_.draft->yield();
    for (int32_t blocks : harness_.draft_memory->committed) EXPECT_EQ(blocks, 0);
  }

 private:
  struct Sent {
    Request request;
    std::shared_ptr<RecordingSink> sink;
  };
  // For some of them a level below the prefix cache, which answers at once, block by block or never, and loses blocks.
  HarnessOptions with_tier(HarnessOptions o) {
    o.script.measures = other_random_.chance(50);
    if (o.script.measures && o.script.max_in_flight > 1) {
      o.script.standstill = std::chrono::microseconds(other_random_.pick({0, 50, 2000}));
    }
    if (!random_.chance(60)) return o;
    o.tier = &tier_;
    if (random_.chance(60)) {  // room for what comes, beside what is in use
      for (int32_t& blocks : o.capacity) blocks *= 6;
    }
    o.script.token_cost = std::chrono::microseconds(random_.pick({0, 500}));
    tier_.answers_at_once = random_.chance(50);
    tier_.answers_after_cancel = random_.chance(20);
    return o;
  }
  void tier_event() {
    const int dice = random_.between(1, 100);
    if (dice <= 50) tier_.deliver(random_.between(1, 6));
    if (dice > 50 && dice <= 60) tier_.room = random_.pick({0, 3, 1 << 20});
    if (dice > 60 && dice <= 65) tier_.takes = random_.chance(80);
    if (dice > 65 && dice <= 70 && !tier_.kept.empty()) tier_.kept.erase(tier_.kept.begin());
    if (dice <= 70 || harness_.traffic == nullptr) return;
    for (int i = 0; i < 20; ++i) harness_.traffic->write_one();
    harness_.kv->shrink_to_minimum();
  }
  int vocab() const { return harness_.options_.script.vocab_size; }

  void event() {
    const int dice = random_.between(1, 100);
    if (dice <= 25) return submit();
    if (dice <= 31 && !sent_.empty()) {
      harness_.loop->end_request(any_id(), FinishReason::cancelled);
    } else if (dice <= 36 && !sent_.empty()) {
      harness_.loop->end_sample(any_id(), random_.between(0, 3), FinishReason::stop);
    } else if (dice <= 38 && memory_comes_and_goes_) {
      harness_.memory->limit = random_.between(1, 60);
      if (harness_.draft != nullptr) harness_.draft_memory->limit = random_.between(0, 60);
    } else if (dice <= 39 && harness_.draft != nullptr) {
      harness_.draft->yield();
    } else if (dice <= 55 && harness_.options_.tier != nullptr) {
      tier_event();
    } else {
      harness_.step_and_check();
      return;
    }
    harness_.check();
  }
  RequestId any_id() { return static_cast<RequestId>(random_.between(1, static_cast<int>(sent_.size()))); }

  void submit() {
    Request r;
    r.id = sent_.size() + 1;
    const int size = random_.between(1, std::min(40, harness_.options_.context_limit - 1));
    const std::vector<Token>& prefix = prefixes_[static_cast<size_t>(random_.between(0, 3))];
    r.prompt.assign(prefix.begin(), prefix.begin() + size);
    if (random_.chance(30)) r.prompt.back() = random_.between(0, vocab() - 1);
    r.sampling.temperature = random_.chance(50) ? 0.0F : 1.0F;
    r.seed = random_.chance(50) ? 1 : 2;
    r.sampling.n = random_.chance(75) ? 1 : random_.between(2, 4);
    const int room = harness_.options_.context_limit - size;
    if (random_.chance(80)) r.sampling.max_tokens = random_.between(0, room);
    r.sampling.ignore_eos = random_.chance(40);
    if (random_.chance(20)) r.sampling.min_tokens = random_.between(1, 10);
    if (random_.chance(20)) r.sampling.stop_token_ids = {1};
    if (has_grammars_ && other_random_.chance(60)) constrain(r);
    if (random_.chance(20)) r.sampling.prompt_logprobs = 1;
    if (random_.chance(20)) r.needs_host_tokens = true;
    if (random_.chance(20)) r.cache_salt = "salt";
    r.priority = random_.chance(70) ? 0 : random_.between(-2, 2);
    const auto tenant = static_cast<TenantId>(random_.between(0, 2));
    r.tenant = {tenant, std::array{1.0, 0.5, 3.0}[tenant]};
    if (random_.chance(15)) r.deadline = harness_.clock.now() + std::chrono::milliseconds(random_.between(0, 60));
    if (random_.chance(50)) predict(r);
    Request kept = r;
    sent_.push_back({std::move(kept), harness_.add(std::move(r))});
    harness_.check();
  }

  // Where it must not end yet, its grammar might allow nothing but an end.
  void constrain(Request& r) {
    r.sampling.min_tokens = 0;
    GrammarScript script;
    script.vocab_size = vocab();
    script.eos = harness_.options_.script.eos_token_ids[0];
    script.seed = static_cast<uint64_t>(other_random_.between(1, 5));
    script.percent = other_random_.pick<uint64_t>({2, 50, 90});
    script.finishes_one = other_random_.pick<uint64_t>({0, 9, 40});
    script.rolls_back = other_random_.chance(85);
    script.breaks_one = other_random_.chance(15) ? 4 : 0;
    r.grammar = std::make_shared<ScriptedGrammar>(script);
  }

  // What it will say, with some of it changed, so that drafts are right and wrong in all places.
  void predict(Request& r) {
    std::optional<Token> stop;
    r.prediction.assign(r.prompt.end() - std::min<std::ptrdiff_t>(2, std::ssize(r.prompt)), r.prompt.end());
    for (const Token token : expected(r, 0, &stop)) {
      r.prediction.push_back(random_.chance(85) ? token : random_.between(0, vocab() - 1));
    }
  }

  // What this sample must have said, unless it was ended from outside.
  std::vector<Token> expected(const Request& r, int32_t sample, std::optional<Token>* stop) const {
    std::vector<Token> ending = r.sampling.stop_token_ids;
    const auto* grammar = dynamic_cast<const ScriptedGrammar*>(r.grammar.get());
    GrammarPlace place = grammar == nullptr ? GrammarPlace{} : first_place(grammar->script);
    if (!r.sampling.ignore_eos || grammar != nullptr) ending.push_back(harness_.options_.script.eos_token_ids[0]);
    const auto ends = [&](Token t) { return std::ranges::find(ending, t) != ending.end(); };
    const int room = harness_.options_.context_limit - static_cast<int>(r.prompt.size());
    const int limit = std::min(room, r.sampling.max_tokens.value_or(room));
    ScriptedToken context;
    context.context_hash = ScriptedRunner::context_hash(r.prompt);
    context.seed = r.sampling.temperature == 0.0F ? 0 : sample_seed(r.seed, sample);
    context.vocab_size = vocab();
    std::vector<Token> output;
    while (static_cast<int>(output.size()) < limit) {
      const bool banned = static_cast<int>(output.size()) < r.sampling.min_tokens;
      Token token = ScriptedRunner::default_token(context);
      while ((banned && ends(token)) || (grammar != nullptr && !place.allows(grammar->script, token))) {
        token = (token + 1) % vocab();
      }
      output.push_back(token);
      context.context_hash = ScriptedRunner::extend_hash(context.context_hash, token);
      if (ends(token)) {
        *stop = token;
        break;
      }
      if (grammar == nullptr) continue;
      place = place.after(token);
      if (place.finished(grammar->script)) break;
    }
    return output;
  }

  void check(const Sent& sent) {
    RecordingSink& sink = *sent.sink;
    ASSERT_EQ(sink.outcomes, 1);
    ASSERT_EQ(static_cast<int>(sink.finished.size()), sent.request.sampling.n);
    if (sink.outcome.error) {
      const ErrorCode code = sink.outcome.error->code;
      ASSERT_TRUE((code == ErrorCode::deadline_exceeded && sent.request.deadline) ||
                  (code == ErrorCode::out_of_memory && memory_comes_and_goes_) ||
                  (code == ErrorCode::numeric && harness_.options_.script.numeric_error))
          << sink.outcome.error->message;
    }
    for (const auto& [sample, reason] : sink.finished) {
      std::optional<Token> stop;
      const std::vector<Token> whole = expected(sent.request, sample, &stop);
      const std::vector<Token>& have = sink.tokens[sample];
      ASSERT_LE(have.size(), whole.size());
      ASSERT_TRUE(std::equal(have.begin(), have.end(), whole.begin())) << "request " << sent.request.id;
      ASSERT_TRUE(reason != FinishReason::length || have.size() == whole.size());
      if (reason == FinishReason::stop && sink.stop_tokens.contains(sample)) {
        ASSERT_EQ(sink.stop_tokens[sample], stop);
        ASSERT_EQ(have.size(), whole.size());
      }
    }
    ASSERT_TRUE(!sink.prompt_logprobs || sink.prompt_logprobs->size() == sent.request.prompt.size() - 1);
    const bool answered = !sink.tokens[0].empty();
    ASSERT_TRUE(!answered || sink.prompt_logprobs.has_value() == sent.request.sampling.prompt_logprobs.has_value());
  }

  Random random_;
  Random other_random_;  // what came later draws from this one, so that the older histories stay
  bool has_grammars_;    // for some of its requests
  ScriptedTier tier_;
  Harness harness_;
  std::vector<std::vector<Token>> prefixes_;
  std::vector<Sent> sent_;
  bool memory_comes_and_goes_ = false;
};

int num_histories() {
  if (INFERNEO_HISTORIES < 1000) return INFERNEO_HISTORIES;
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max(1, static_cast<int>(INFERNEO_HISTORIES * (scale == nullptr ? 0.02 : std::atof(scale))));
}

TEST(History, EveryLawHoldsAfterEveryEvent) {
  const int count = num_histories();
  uint64_t accepted_drafts = 0;
  uint64_t accepted_of_models = 0;
  uint64_t accepted_under_grammars = 0;
  uint64_t fetched_tokens = 0;
  for (int seed = 1; seed <= count; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(static_cast<uint64_t>(seed));
    history.run();
    ASSERT_FALSE(testing::Test::HasFailure());
    accepted_drafts += history.accepted_drafts();
    accepted_under_grammars += history.accepted_under_grammars();
    fetched_tokens += history.fetched_tokens();
    accepted_of_models += history.has_draft() ? history.accepted_drafts() : 0;
  }
  EXPECT_GT(fetched_tokens, static_cast<uint64_t>(count) / 2) << "the level below the prefix cache was hardly tried";
  EXPECT_GT(accepted_drafts, static_cast<uint64_t>(count) / 4) << "speculation was hardly tried";
  EXPECT_GT(accepted_under_grammars, static_cast<uint64_t>(count) / 16) << "grammars were hardly guessed under";
  EXPECT_GT(accepted_of_models, static_cast<uint64_t>(count) / 8) << "draft models were hardly tried";
}

}  // namespace
}  // namespace inferneo
