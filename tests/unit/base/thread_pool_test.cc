#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

namespace inferneo {
namespace {

TEST(ThreadPool, EachChunkRunsOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ThreadPool::Session session(pool);
    for (const int64_t chunks : {0, 1, 2, 7, 1000}) {
      std::vector<int> hits(static_cast<size_t>(chunks), 0);
      session.for_chunks(chunks, [&](int64_t chunk, int thread) {
        EXPECT_LT(thread, threads);
        ++hits[static_cast<size_t>(chunk)];
      });
      for (const int count : hits) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, RunReachesEveryThreadOnce) {
  ThreadPool pool(3);
  ThreadPool::Session session(pool);
  for (int round = 0; round < 2000; ++round) {
    std::atomic<int> mask{0};
    session.run([&](int thread) { mask.fetch_add(1 << (8 * thread)); });
    ASSERT_EQ(mask.load(), 0x010101);
  }
}

TEST(ThreadPool, ManyCallersTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::vector<int64_t> sums(4, 0);
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&, caller] {
      for (int step = 0; step < 200; ++step) {
        ThreadPool::Session session(pool);
        EXPECT_EQ(inside.fetch_add(1), 0);
        std::vector<int64_t> parts(64);
        session.for_chunks(64, [&](int64_t chunk, int) { parts[static_cast<size_t>(chunk)] = chunk; });
        sums[caller] += std::accumulate(parts.begin(), parts.end(), int64_t{0});
        inside.fetch_sub(1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 200 * 2016);
}

}  // namespace
}  // namespace inferneo
