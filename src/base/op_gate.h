// The gate between the thread that runs the ops of a step and the workers that help it.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace inferneo {

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// One op at a time is open. A worker enters it while it is open, and only those who have entered are waited for: a
// worker without a core (another process has it) holds nobody up, the others do its chunks.
//
// The gate is one word: a number that every op changes, whether the op is open, how many workers are inside.
class OpGate {
 public:
  // A pause is tens of nanoseconds. Who waits for something that comes within microseconds spins; then it offers its
  // core at every turn, since what it waits for may need just that core: the kernel does not always spread three
  // threads over two.
  static constexpr int kSpinsBeforeYield = 2'000;

  // Of the caller alone, with nobody inside. What was written before is seen by those who enter.
  // seq_cst, here and in wake_all(): notify_all() makes no system call where it sees nobody asleep. Were that look to
  // come before the store, a worker that falls asleep between the two would miss the op; an op that waits for every
  // thread would then never end.
  void open() {
    number_ = (number_ + kOneNumber) & ~(kOpen | kInside);
    word_.store(number_ | kOpen, std::memory_order_seq_cst);
    word_.notify_all();
  }
  // Nobody enters any more; returns when those inside have left. What they wrote is seen.
  void close() {
    uint32_t word = word_.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
    for (int spins = 0; (word & kInside) != 0; ++spins) {
      if (spins >= kSpinsBeforeYield) std::this_thread::yield();
      cpu_pause();
      word = word_.load(std::memory_order_acquire);
    }
  }
  // Of the caller, before open(): the number of the op that comes, for is_news() and enter_again().
  uint32_t next_op() const { return (number_ + kOneNumber) & ~(kOpen | kInside); }
  void wake_all() {
    word_.fetch_add(kOneNumber, std::memory_order_seq_cst);
    word_.notify_all();
  }

  uint32_t look() const { return word_.load(std::memory_order_acquire); }
  static bool is_open(uint32_t word) { return (word & kOpen) != 0; }
  static bool is_news(uint32_t word, uint32_t seen) { return ((word ^ seen) & ~(kOpen | kInside)) != 0; }
  // False: it has closed, or others moved; look again.
  bool enter(uint32_t word) { return word_.compare_exchange_strong(word, word + 1, std::memory_order_acquire); }
  // Of one who has left the op before its end. False: it is over.
  bool enter_again(uint32_t op) {
    for (;;) {
      const uint32_t word = look();
      if (!is_open(word) || is_news(word, op)) return false;
      if (enter(word)) return true;
    }
  }
  void leave() { word_.fetch_sub(1, std::memory_order_release); }
  // Sleeps while nothing has happened since `word` was read.
  void sleep(uint32_t word) const { word_.wait(word, std::memory_order_acquire); }

 private:
  static constexpr uint32_t kInside = 0xFFF;
  static constexpr uint32_t kOpen = 0x1000;
  static constexpr uint32_t kOneNumber = 0x2000;

  std::atomic<uint32_t> word_{0};
  uint32_t number_ = 0;
};

}  // namespace inferneo
