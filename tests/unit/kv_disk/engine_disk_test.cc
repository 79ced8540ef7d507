// Engines on a scripted runner over the real level on disk: little memory, many requests at once, restarts. The runner
// takes its tokens from what it reads back, so a block in a wrong place, or a byte too many, changes them.
#include <future>

#include "kv_disk/kv_disk.h"
#include "kv_fixture.h"
#include "unit/engine/engine_fixture.h"

namespace inferneo {
namespace {

class TokensSink final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { done.set_value(outcome); }
  std::vector<Token> tokens;
  std::promise<RequestOutcome> done;
};

class EngineDiskTest : public ::testing::Test {
 protected:
  std::unique_ptr<EngineCore> core(KvDisk& disk, const std::string& content) {
    EngineCoreConfig config;
    config.model = content;
    config.num_kv_blocks = {24};  // of 16 tokens: three requests
    config.max_num_seqs = 4;
    config.idle_trim_after = std::chrono::milliseconds(20);
    config.open_tier = [&disk](const KvTierSpec& spec, std::function<void()> wake) {
      return disk.open(spec, std::move(wake));
    };
    Script script;
    script.content_key = content;
    script.token_cost = std::chrono::microseconds(20);
    auto made = EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger_, clock_);
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(made).value();
  }

  testing::TempTree tree_;
  MemoryLedger ledger_{size_t{64} << 20};
  SteadyClock clock_;
};

TEST_F(EngineDiskTest, TokensAreThoseOfAnEngineAloneWhateverIsFetched) {
  uint64_t hits = 0;
  for (int start = 0; start < 3; ++start) {
    KvDisk disk({tree_.path("kv"), 4 << 20}, ledger_);
    const std::unique_ptr<EngineCore> cores[] = {core(disk, "a"), core(disk, "b")};
    std::vector<std::tuple<std::shared_ptr<TokensSink>, std::vector<Token>, bool>> sent;
    for (int i = 0; i < 60; ++i) {
      EngineCore& engine = *cores[i % 2];
      const std::vector<Token> prompt = iota_prompt(90 + i % 7, 40 * (i % 5));
      Request request;
      request.id = static_cast<RequestId>(i + 1);
      request.prompt = prompt;
      request.sampling.max_tokens = 6;
      auto sink = std::make_shared<TokensSink>();
      request.sink = sink;
      ASSERT_TRUE(engine.submit(std::move(request)).ok());
      const bool cancelled = i % 9 == 4;
      if (cancelled) engine.cancel(static_cast<RequestId>(i + 1));
      sent.emplace_back(std::move(sink), prompt, cancelled);
      if (i % 10 == 9) engine.trim();
    }
    for (auto& [sink, prompt, cancelled] : sent) {
      const RequestOutcome outcome = sink->done.get_future().get();
      EXPECT_FALSE(outcome.error) << outcome.error->message;
      const std::vector<Token> expected = reference(prompt, 6);
      ASSERT_LE(sink->tokens.size(), expected.size());
      EXPECT_TRUE(std::equal(sink->tokens.begin(), sink->tokens.end(), expected.begin()));
      EXPECT_TRUE(cancelled || sink->tokens.size() == expected.size());
    }
    for (const auto& engine : cores) {
      engine->stop();
      const Status whole = engine->check_integrity();
      EXPECT_TRUE(whole.ok()) << whole.error().message;
      hits += engine->stats().prefix_tier.hits;
    }
    disk.stop(std::chrono::minutes(1));
  }
  EXPECT_GT(hits, 0U);
  EXPECT_EQ(ledger_.used_by("prefix cache"), 0U) << "nothing is on its way any more";
}

}  // namespace
}  // namespace inferneo
