// A core with a level below its prefix cache, threads included: what an idle or ending core hands down, what the next
// one takes up, and its end while something is fetched.
#include <future>

#include "engine_fixture.h"

namespace inferneo {
namespace {

class DoneSink final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { done.set_value(outcome); }  // a second one would throw
  std::vector<Token> tokens;
  std::promise<RequestOutcome> done;
};

// A core that begins with what `kept` holds, and leaves there what is below in the end.
class TieredCore {
 public:
  using Kept = std::map<ScriptedTier::Id, std::vector<std::byte>>;

  explicit TieredCore(Kept& kept, bool answers = true, const std::string& content_key = "content") : kept_(kept) {
    EngineCoreConfig config;
    config.num_kv_blocks = {32};
    config.idle_trim_after.reset();
    config.open_tier = [&](const KvTierSpec& spec, const std::function<void()>&) {
      EXPECT_EQ(spec.block_size, 16);
      EXPECT_TRUE(spec.content.starts_with(content_key));
      auto made = std::make_unique<ScriptedTier>();
      made->kept = kept;
      made->answers_at_once = answers;
      tier = made.get();
      return made;
    };
    Script script;
    script.content_key = content_key;
    auto created = EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger, clock);
    EXPECT_TRUE(created.ok()) << created.error().message;
    engine = std::move(created).value();
  }
  std::shared_ptr<DoneSink> submit(RequestId id) const {
    auto sink = std::make_shared<DoneSink>();
    Request request;
    request.id = id;
    request.prompt = iota_prompt(64);
    request.sampling.max_tokens = 3;
    request.sink = sink;
    EXPECT_TRUE(engine->submit(std::move(request)).ok());
    return sink;
  }
  void stop() {
    engine->stop();
    if (tier != nullptr) kept_ = tier->kept;
    const Status whole = engine->check_integrity();
    EXPECT_TRUE(whole.ok()) << whole.error().message;
  }

  ScriptedTier* tier = nullptr;  // the engine's; looked at once it has stopped
  MemoryLedger ledger{size_t{64} << 20};
  ManualClock clock;  // so that nobody loses patience before he is told to
  std::unique_ptr<EngineCore> engine;

 private:
  Kept& kept_;
};

TEST(TieredCore, TheNextOneTakesUpWhatThisOneHandedDown) {
  TieredCore::Kept kept;
  std::vector<Token> expected;
  {
    TieredCore core(kept);
    const auto sink = core.submit(1);
    EXPECT_EQ(sink->done.get_future().get().stats.cached_tokens, 0);
    core.stop();
    EXPECT_EQ(core.tier->num_stored, 4);
    expected = sink->tokens;
  }
  TieredCore core(kept);
  const auto sink = core.submit(1);
  EXPECT_EQ(sink->done.get_future().get().stats.cached_tokens, 48);
  EXPECT_EQ(sink->tokens, expected);
  core.stop();
  EXPECT_EQ(core.engine->stats().prefix_tier.hits, 48U);
  EXPECT_EQ(core.engine->stats().prefix_hits, 0U);
  EXPECT_EQ(core.tier->num_stored, 0) << "it is all there";
}

TEST(TieredCore, EndsAndCancelsWhileSomethingIsFetched) {
  TieredCore::Kept kept;
  {
    TieredCore core(kept);
    core.submit(1)->done.get_future().get();
    core.stop();
  }
  for (bool cancels : {false, true}) {
    TieredCore core(kept, false);
    const auto sink = core.submit(1);
    if (cancels) core.engine->cancel(1);
    core.stop();
    const RequestOutcome outcome = sink->done.get_future().get();
    EXPECT_TRUE(outcome.reason == FinishReason::cancelled || outcome.error);
    EXPECT_TRUE(sink->tokens.empty());
  }
  TieredCore core(kept, false);  // nothing ever comes
  const auto sink = core.submit(1);
  auto done = sink->done.get_future();
  while (done.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    core.clock.advance(std::chrono::seconds(1));
  }
  EXPECT_EQ(done.get().stats.cached_tokens, 0) << "it computes when it has waited long enough";
  EXPECT_EQ(sink->tokens.size(), 3U);
  core.stop();
}

TEST(TieredCore, ARunnerWhoseContentHasNoNameHasNoTier) {
  TieredCore::Kept kept;
  TieredCore core(kept, true, "");
  EXPECT_EQ(core.tier, nullptr);
  core.submit(1)->done.get_future().get();
  core.stop();
}

}  // namespace
}  // namespace inferneo
