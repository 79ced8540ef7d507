// A model is unloaded again and again while threads tokenize, fill the chat template and generate: the lease holds it,
// or the request ends with a clean error. Meant for the asan and tsan builds as well.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "model_house.h"

namespace inferneo {
namespace {

constexpr int kThreads = 8;
constexpr const char* kModel = "story";

int num_unloads() {
#ifdef INFERNEO_SOAK
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max(100, static_cast<int>(10'000 * (scale == nullptr ? 0.02 : std::atof(scale))));
#else
  return 40;
#endif
}

struct Counts {
  std::atomic<int64_t> requests{0};
  std::atomic<int64_t> finished{0};
  std::atomic<int64_t> cut{0};      // accepted, and ended by the unload
  std::atomic<int64_t> refused{0};  // by a core that was draining
  int64_t answered() const { return finished + cut + refused; }
};

// What the model is asked: never the same prefix twice in a row.
ChatInput chat(int number) {
  ChatInput input;
  input.messages =
      fmt::format(R"([{{"role": "user", "content": "Tell me story {} of <|im_end|> and a fox"}}])", number);
  return input;
}

class Client {
 public:
  Client(const ModelHouse& house, Counts& counts, unsigned seed) : house_(house), counts_(counts), random_(seed) {}

  void run(const std::atomic<bool>& finished) {
    for (int i = 0; !finished && !::testing::Test::HasFailure(); ++i) request(i);
  }

 private:
  void request(int number) {
    ++counts_.requests;
    auto acquired = house_.acquire(kModel);
    ASSERT_TRUE(acquired.ok()) << acquired.error().message;
    ModelLease lease = std::move(acquired).value();
    const std::shared_ptr<const Tokenizer> tokenizer = lease->tokenizer;
    const auto prompt = tokenizer->apply_chat_template(chat(number));
    ASSERT_TRUE(prompt.ok()) << prompt.error().message;
    const auto outcome = generate(*lease->core, *prompt, 1 + static_cast<int>(random_() % 8));
    if (random_() % 2 == 0) lease.reset();  // who still holds the tokenizer may use it
    if (!outcome.ok()) {
      ASSERT_EQ(outcome.error().code, ErrorCode::unavailable) << outcome.error().message;
      ++counts_.refused;
    } else if (outcome->error) {
      ASSERT_EQ(outcome->error->code, ErrorCode::unavailable) << outcome->error->message;
      ++counts_.cut;
    } else {
      ++counts_.finished;
    }
    const std::string text = fmt::format("thread {} says: once upon a time", random_() % 100);
    const auto encoded = tokenizer->encode(text, false);
    ASSERT_TRUE(encoded.ok());
    const auto decoded = tokenizer->decode(*encoded, false);
    ASSERT_TRUE(decoded.ok());
    ASSERT_EQ(*decoded, text);
  }

  const ModelHouse& house_;
  Counts& counts_;
  std::mt19937 random_;
};

// Each unload finds the model in memory, gives its requests no time, a little, or all that they need.
void unload_often(const ModelHouse& house, int times) {
  std::mt19937 random(7);
  for (int i = 0; i < times && !::testing::Test::HasFailure(); ++i) {
    const uint64_t before = house.status(kModel).loads;
    const auto patience = std::chrono::milliseconds(std::array<int, 3>{0, 2, 1000}[random() % 3]);
    ASSERT_TRUE(house.manager->unload(kModel, house.clock.now() + patience).ok());
    ASSERT_TRUE(ModelHouse::eventually([&] { return house.status(kModel).loads > before; })) << "it never came back";
  }
}

TEST(UnloadRace, NoRequestIsLostAndNothingIsUsedAfterItsEnd) {
  ModelHouse house;
  house.add(kModel, bundled_model("inferneo-story-draft"));
  ASSERT_TRUE(house.acquire(kModel).ok());
  Counts counts;
  std::atomic<bool> finished{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { Client(house, counts, t).run(finished); });
  }
  const int unloads = num_unloads();
  unload_often(house, unloads);
  finished = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts.answered(), counts.requests);
  EXPECT_GT(counts.finished, 0);
  const ModelStatus status = house.status(kModel);
  EXPECT_EQ(status.leases, 0);
  EXPECT_GE(status.unloads[static_cast<size_t>(UnloadReason::asked)], static_cast<uint64_t>(unloads));
  house.unload(kModel);
  EXPECT_EQ(house.ledger.used(), 0U);
  fmt::print("{} unloads, {} requests: {} finished, {} cut, {} refused\n", unloads, counts.requests.load(),
             counts.finished.load(), counts.cut.load(), counts.refused.load());
}

}  // namespace
}  // namespace inferneo
