// Draft models among the golden models, which all have one vocabulary: whichever guesses for whichever (other families,
// windows of other lengths, a shorter context), the tokens are those of plain decoding, greedy and sampled.
#include <gtest/gtest.h>

#include "base/system.h"
#include "engine/engine_core.h"
#include "model_house.h"
#include "unit/models/golden_models.h"

namespace inferneo {
namespace {

constexpr int kTokens = 70;

struct Machine {
  SteadyClock clock;
  MemoryLedger ledger{size_t{1} << 30};
  ThreadPool pool{2};
};

std::unique_ptr<ModelRunner> open_runner(Machine& machine, const ModelDirectory& directory) {
  LoadOptions options;
  options.directory = &directory;
  options.model_name = "golden";
  options.ledger = &machine.ledger;
  options.pool = &machine.pool;
  Result<std::unique_ptr<ModelRunner>> runner = load_transformers_model(options);
  EXPECT_TRUE(runner.ok()) << runner.error().message;
  return std::move(runner).value();
}

struct Said {
  std::vector<std::vector<Token>> tokens;
  EngineStats stats;
};

// What a model says, greedily and sampled, alone and together; draft: null for none.
Said said(const std::string& model, const std::string* draft) {
  Machine machine;
  Said said;
  const Result<ModelDirectory> directory = open_model(golden_root() + "/" + model);
  const Result<ModelDirectory> of_draft = open_model(golden_root() + "/" + (draft == nullptr ? model : *draft));
  EXPECT_TRUE(directory.ok() && of_draft.ok());
  const Result<Expected> expected = read_expected(machine.ledger, *directory);
  EXPECT_TRUE(expected.ok());
  EngineCoreConfig config;
  config.max_kv_bytes = size_t{64} << 20;
  config.num_speculative_tokens = draft == nullptr ? 0 : 5;
  std::unique_ptr<ModelRunner> guesses = draft == nullptr ? nullptr : open_runner(machine, *of_draft);
  auto core =
      EngineCore::create(config, open_runner(machine, *directory), machine.ledger, machine.clock, std::move(guesses));
  EXPECT_TRUE(core.ok()) << core.error().message;
  if (!core.ok()) return said;
  std::vector<std::shared_ptr<DoneSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    const auto sink = std::make_shared<DoneSink>();
    Request request;
    request.id = static_cast<RequestId>(i) + 1;
    request.prompt = expected->prompt;
    request.prompt.resize(std::min<size_t>(request.prompt.size(), 20));
    request.seed = static_cast<uint64_t>(i);
    request.sampling.temperature = i % 3 == 0 ? 0.0F : 0.5F;
    request.sampling.top_p = 0.9F;
    request.sampling.frequency_penalty = i % 3 == 2 ? 0.4F : 0.0F;
    request.sampling.max_tokens = std::min(kTokens, (*core)->max_model_len() - 20);
    request.sampling.ignore_eos = true;
    request.sink = sink;
    EXPECT_TRUE((*core)->submit(std::move(request)).ok());
    sinks.push_back(sink);
    if (i < 3) sink->wait();
  }
  for (const auto& sink : sinks) {
    EXPECT_FALSE(sink->wait().error.has_value());
    said.tokens.push_back(sink->tokens);
  }
  (*core)->stop();
  said.stats = (*core)->stats();
  const Status books = (*core)->check_integrity();
  EXPECT_TRUE(books.ok()) << books.error().message;
  core->reset();
  return said;
}

TEST(GoldenDrafts, WhoeverGuessesTheTokensAreThoseOfPlainDecoding) {
  const std::vector<std::string> names = golden_names();
  uint64_t accepted = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const Said plain = said(names[i], nullptr);
    EXPECT_EQ(plain.stats.speculation.total().drafts, 0U);
    for (const size_t step : {size_t{0}, size_t{1 + i % 7}}) {  // itself, and another one
      const std::string& draft = names[(i + step) % names.size()];
      SCOPED_TRACE(names[i] + " with " + draft);
      const Said guessed = said(names[i], &draft);
      EXPECT_EQ(guessed.tokens, plain.tokens);
      EXPECT_GT(guessed.stats.speculation.total().drafts, 0U);
      if (step == 0) accepted += guessed.stats.speculation.total().accepted_tokens;
    }
  }
  EXPECT_GT(accepted, 0U);  // how many, and from where, depends on what steps took
}

}  // namespace
}  // namespace inferneo
