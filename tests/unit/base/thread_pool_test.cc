#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
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

// Between the ops the workers have time to fall asleep, or are about to when the next op opens.
TEST(ThreadPool, RunWakesThoseWhoFallAsleep) {
  ThreadPool pool(3);
  ThreadPool::Session session(pool);
  for (int round = 0; round < 300; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(round * 4));
    std::atomic<int> mask{0};
    session.run([&](int thread) { mask.fetch_add(1 << (8 * thread)); });
    ASSERT_EQ(mask.load(), 0x010101);
  }
}

// A worker that comes late, or not at all, must not read the job of an op that is over.
TEST(ThreadPool, ShortOpsOfManyThreadsLoseNothing) {
  ThreadPool pool(8);
  ThreadPool::Session session(pool);
  int64_t sum = 0;
  for (int64_t op = 0; op < 50'000; ++op) {
    std::atomic<int64_t> part{0};
    session.for_chunks(3, [&](int64_t chunk, int) { part.fetch_add(op + chunk); });
    sum += part.load();
  }
  EXPECT_EQ(sum, 3 * (49'999LL * 50'000 / 2) + 3 * 50'000);
}

// On one core: were every worker waited for, each op would need a switch to each of them.
TEST(ThreadPool, AWorkerWithoutACoreHoldsNobodyUp) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  std::thread caller([&] {
    int first = 0;
    while (!CPU_ISSET(first, &all)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    constexpr int kOps = 20'000;
    ThreadPool pool(4);
    ThreadPool::Session session(pool);
    std::atomic<int64_t> sum{0};
    for (int op = 0; op < kOps; ++op) {
      session.for_chunks(4, [&](int64_t chunk, int) { sum.fetch_add(chunk, std::memory_order_relaxed); });
    }
    EXPECT_EQ(sum.load(), 6 * kOps);
    rusage usage = {};
    ASSERT_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
    EXPECT_LT(usage.ru_nvcsw + usage.ru_nivcsw, kOps / 4);
  });
  caller.join();
}

// Chunks so long that workers leave an op to offer their cores, and come back to it or find it over.
TEST(ThreadPool, WorkersThatOfferTheirCoresLoseNoChunk) {
  std::atomic<bool> over{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      while (!over.load(std::memory_order_relaxed)) {
      }
    });
  }
  ThreadPool pool(4);
  {
    ThreadPool::Session session(pool);
    for (int op = 0; op < 60; ++op) {
      std::vector<int> hits(static_cast<size_t>(1 + op % 24), 0);
      session.for_chunks(static_cast<int64_t>(hits.size()), [&](int64_t chunk, int) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(100 << op % 5);
        while (std::chrono::steady_clock::now() < until) {
        }
        ++hits[static_cast<size_t>(chunk)];
      });
      for (const int count : hits) ASSERT_EQ(count, 1);
      std::atomic<int> mask{0};
      session.run([&](int thread) { mask.fetch_add(1 << (8 * thread)); });
      ASSERT_EQ(mask.load(), 0x01010101);
    }
  }
  over.store(true);
  for (std::thread& other : others) other.join();
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
