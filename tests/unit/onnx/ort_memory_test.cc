// What the library's memory comes from: aligned, counted, and kept between runs within the peak.
#include "models/onnx/ort_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "tensor/memory.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(OrtMemory, IsAlignedAndCounted) {
  OrtAccount account;
  {
    const OrtAccount::Scope scope(account);
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, kHugePage - 64, kHugePage, 3 * kMiB + 5}) {
      void* const memory = allocate_for_ort(size);
      ASSERT_NE(memory, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0U);
      if (size >= kHugePage) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % kHugePage, 64U);
      }
      std::fill_n(static_cast<char*>(memory), size, 'x');
      EXPECT_GE(account.bytes(), size);
      EXPECT_LE(account.bytes(), size + 8192);
      free_for_ort(memory);
      EXPECT_EQ(account.bytes(), 0U);
    }
  }
  EXPECT_EQ(allocate_for_ort(SIZE_MAX), nullptr);
  void* const nobodys = allocate_for_ort(kMiB);
  free_for_ort(nobodys);
  EXPECT_EQ(account.bytes(), 0U);
}

TEST(OrtMemory, WhatIsFreedIsTakenAgain) {
  OrtAccount account;
  const OrtAccount::Scope scope(account);
  account.keep_freed();
  void* const first = allocate_for_ort(4 * kMiB);
  const size_t bytes = account.bytes();
  std::thread([&] { free_for_ort(first); }).join();  // as one of the library's threads may
  EXPECT_EQ(account.bytes(), bytes) << "what is kept counts";
  void* const again = allocate_for_ort(4 * kMiB - 100);
  EXPECT_EQ(again, first);
  void* const small = allocate_for_ort(kMiB);
  EXPECT_NE(small, first);
  free_for_ort(again);
  free_for_ort(small);
  account.reset_peak();
  EXPECT_EQ(account.bytes(), 0U);
  EXPECT_EQ(account.peak(), 0U);
}

// The peak is that of what was in use at one time, whatever sizes come and go; a block may be a third too large.
TEST(OrtMemory, WhatIsKeptMakesThePeakNoHigher) {
  std::mt19937 random(5);
  for (int history = 0; history < 20; ++history) {
    OrtAccount account;
    const OrtAccount::Scope scope(account);
    account.keep_freed();
    std::vector<std::pair<void*, size_t>> used;
    size_t in_use = 0;
    size_t most = 0;
    for (int step = 0; step < 200; ++step) {
      if (used.size() > 6 || (!used.empty() && random() % 2 == 0)) {
        std::swap(used[random() % used.size()], used.back());
        free_for_ort(used.back().first);
        in_use -= used.back().second + 8192;
        used.pop_back();
        continue;
      }
      const size_t size = 1 + random() % (5 * kMiB);
      used.emplace_back(allocate_for_ort(size), size);
      in_use += size + 8192;
      most = std::max(most, in_use);
      ASSERT_GE(account.bytes(), in_use - used.size() * 8192);
    }
    EXPECT_LE(account.peak(), most * 4 / 3 + 200 * 8192);
    for (const auto& [memory, size] : used) free_for_ort(memory);
  }
}

}  // namespace
}  // namespace inferneo::onnx
