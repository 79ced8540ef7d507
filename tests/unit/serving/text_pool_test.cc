#include "serving/text_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

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

}  // namespace
}  // namespace inferneo
