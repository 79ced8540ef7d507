#include "serving/text_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

namespace inferneo {
namespace {

TEST(TextPool, RunsEverythingEvenWhatIsQueuedAtTheEnd) {
  std::atomic<int> done{0};
  {
    TextPool pool(3, 10'000);
    for (int i = 0; i < 1000; ++i) {
      ASSERT_TRUE(pool.try_post([&done, &pool] {
        pool.post([&done] { ++done; });
        ++done;
      }));
    }
  }
  EXPECT_EQ(done, 2000);
}

TEST(TextPool, RefusesNewWorkWhenFullAndNeverContinuations) {
  std::promise<void> gate;
  std::shared_future<void> open = gate.get_future().share();
  std::promise<void> started;
  std::atomic<int> done{0};
  {
    TextPool pool(1, 2);
    pool.post([&started, open] {
      started.set_value();
      open.wait();
    });
    started.get_future().wait();
    EXPECT_TRUE(pool.try_post([&done] { ++done; }));
    EXPECT_TRUE(pool.try_post([&done] { ++done; }));
    EXPECT_FALSE(pool.try_post([&done] { ++done; }));
    pool.post([&done] { ++done; });
    gate.set_value();
  }
  EXPECT_EQ(done, 3);
}

// Prompts that take long, as many as threads and more behind them: a stream's next tokens still come at once.
TEST(TextPool, ContinuationsPassLongBeginnings) {
  for (const int threads : {1, 2, 4}) {
    std::promise<void> gate;
    std::shared_future<void> open = gate.get_future().share();
    std::promise<void> continued;
    std::atomic<int> begun{0};
    std::atomic<int> begun_before{0};
    TextPool pool(threads, 100);
    const int busy = std::max(1, threads - 1);
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(pool.try_post([&begun, open] {
        ++begun;
        open.wait();
      }));
    }
    while (begun < busy) std::this_thread::yield();
    pool.post([&] {
      begun_before = begun.load();
      continued.set_value();
    });
    std::future<void> told = continued.get_future();
    if (threads > 1) {
      EXPECT_EQ(told.wait_for(std::chrono::seconds(10)), std::future_status::ready) << "while all others are busy";
    }
    gate.set_value();
    told.wait();
    EXPECT_LE(begun_before, busy) << "before what had come earlier";
  }
}

}  // namespace
}  // namespace inferneo
