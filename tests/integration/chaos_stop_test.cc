// The end of a server with a hundred streams in hand: drained to their ends within the limit, ended by an error event
// beyond it, cut at once by the second stop.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "raw_client.h"
#include "serving_stack.h"
#include "support/cpu_time.h"
#include "swarm.h"

namespace inferneo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kStreams = 100;

class ChaosStop : public ::testing::Test {
 protected:
  void start(int max_tokens, Duration drain_timeout) {
    StackOptions options;
    options.script.step_cost = milliseconds(5);
    options.core.max_num_seqs = 64;  // some streams are still waiting when the stop comes
    options.server.limits.drain_timeout = drain_timeout;
    stack_ = std::make_unique<ServingStack>(std::move(options));
    swarm_ = std::make_unique<Swarm>(stack_->port());
    for (size_t i = 0; i < kStreams; ++i) {
      const auto prompt = prompt_of(i, 10, stack_->tokenizer().vocab_size());
      questions_.push_back(ask_completion(stack_->tokenizer(), prompt, max_tokens));
      swarm_->add({questions_.back().request, {}});
    }
    const auto some_are_answered = [&] {
      size_t begun = 0;
      for (const auto& client : swarm_->clients()) begun += client->reader().num_events() > 2 ? 1 : 0;
      return begun > kStreams / 4 && swarm_->num_asked() == kStreams;
    };
    ASSERT_TRUE(swarm_->run_until(some_are_answered, seconds(30)));
    // Every request has been accepted: a connection still in the listen queue would be turned away, rightly.
    const auto all_accepted = [&] {
      const EngineStats stats = stack_->core().stats();
      return stats.running + stats.waiting == static_cast<int>(kStreams);
    };
    ASSERT_TRUE(swarm_->run_until(all_accepted, seconds(30)));
  }

  // From the stop to the end of the last io thread, while the clients read.
  Duration time_to_join() {
    const TimePoint start = std::chrono::steady_clock::now();
    std::atomic<bool> joined = false;
    std::thread joiner([&] {
      stack_->server().join();
      joined = true;
    });
    EXPECT_TRUE(swarm_->run_until([&] { return joined.load(); }, seconds(60)));
    joiner.join();
    return std::chrono::steady_clock::now() - start;
  }

  void expect_errors_once() {
    for (size_t i = 0; i < kStreams; ++i) {
      const Client& client = *swarm_->clients()[i];
      const StreamReader& answer = client.reader();
      EXPECT_EQ(client.state(), Client::State::answered) << client.trouble();
      EXPECT_EQ(answer.breach(), "");
      EXPECT_EQ(answer.error_code(), "unavailable");
      EXPECT_EQ(answer.num_done(), answer.status() == 200 ? 1 : 0);
    }
  }

  std::unique_ptr<ServingStack> stack_;
  std::unique_ptr<Swarm> swarm_;
  std::vector<Question> questions_;
};

TEST_F(ChaosStop, DrainsToTheEndWithinTheLimit) {
  start(60, seconds(30));
  stack_->server().request_stop();
  EXPECT_TRUE(eventually([&] { return !RawClient(stack_->port()).connected(); })) << "no new connections";
  const Duration took = time_to_join();
  EXPECT_LT(took, seconds(20)) << "the drain ends with its last stream";
  ASSERT_TRUE(swarm_->run_to_the_end(seconds(5)));
  for (size_t i = 0; i < kStreams; ++i) EXPECT_EQ(judge_whole(questions_[i], swarm_->clients()[i]->reader()), "");
}

TEST_F(ChaosStop, EndsWhatIsLeftWithAnErrorBeyondTheLimit) {
  start(3000, milliseconds(300));
  stack_->server().request_stop();
  const Duration took = time_to_join();
  EXPECT_GE(took, milliseconds(290));
  EXPECT_LT(took, milliseconds(300) + seconds(3));
  ASSERT_TRUE(swarm_->run_to_the_end(seconds(5)));
  expect_errors_once();
  stack_->expect_idle(milliseconds(static_cast<int>(1000 * kSlowdown)));
}

TEST_F(ChaosStop, TheSecondStopEndsAtOnce) {
  start(3000, seconds(30));
  stack_->server().request_stop();
  swarm_->run_until([] { return false; }, milliseconds(50));
  stack_->server().request_stop();
  EXPECT_LT(time_to_join(), milliseconds(static_cast<int>(500 * kSlowdown)));
  ASSERT_TRUE(swarm_->run_to_the_end(seconds(5)));
  for (size_t i = 0; i < kStreams; ++i) EXPECT_EQ(judge_part(questions_[i], swarm_->clients()[i]->reader()), "");
  stack_->expect_idle(milliseconds(static_cast<int>(1000 * kSlowdown)));
}

TEST_F(ChaosStop, TheEngineEndsWhatIsLeftAtItsOwnDeadline) {
  start(3000, seconds(30));
  std::jthread drainer([&] { stack_->service().drain(std::chrono::steady_clock::now() + milliseconds(200)); });
  ASSERT_TRUE(swarm_->run_to_the_end(seconds(10)));
  drainer.join();
  expect_errors_once();
  EXPECT_EQ(fetch(stack_->port(), "GET", "/ready")->status, 503);
  const auto refused = fetch(stack_->port(), "POST", "/v1/completions", R"({"prompt": "x"})");
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 503);
  EXPECT_TRUE(refused->headers.contains("retry-after"));
  stack_->expect_state_at_the_end(EngineState::draining);
}

}  // namespace
}  // namespace inferneo::testing
