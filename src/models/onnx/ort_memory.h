// The memory that ONNX Runtime takes, counted: one allocator for the whole library, and one account for each session.
//
// Whoever calls into the library says whose account it is for the time of the call (OrtAccount::Scope); a block goes
// back to the account that it came from, whichever thread frees it. So a session's weights and its workspace are known
// to the byte, where the library's own arena would be one lump.
// Big blocks begin at multiples of 2 MiB and ask for huge pages: what a step reads of the weights is then read faster.
// What a run frees is kept for the next block of about its size (keep_freed()), since new pages are zeroed by the
// system each time: blocks that are kept count, and are given back before they would make the peak higher.
// Threads: all of it may be used from any thread. An account outlives the session that allocates on it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace inferneo::onnx {

class OrtAccount {
 public:
  static constexpr size_t kLeastKept = size_t{64} << 10;  // smaller blocks are never kept
  static constexpr size_t kMostKept = 64;                 // blocks

  OrtAccount() = default;
  ~OrtAccount();
  OrtAccount(const OrtAccount&) = delete;
  OrtAccount& operator=(const OrtAccount&) = delete;

  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  size_t peak() const { return peak_.load(std::memory_order_relaxed); }
  // Gives back what is kept, and counts the peak from what is left.
  void reset_peak();
  // From now on blocks that are freed are kept. Before that, as while a graph is opened, none is.
  void keep_freed() { keeping_.store(true, std::memory_order_relaxed); }

  // What this thread allocates meanwhile is on this account. Scopes nest.
  class Scope {
   public:
    explicit Scope(OrtAccount& account);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    OrtAccount* before_;
  };

 private:
  friend void* allocate_for_ort(size_t size);
  friend void free_for_ort(void* memory);
  struct Kept {
    void* block;
    size_t bytes;
  };
  void change(int64_t bytes);
  void* take_kept(size_t bytes);
  void make_room(size_t bytes);
  bool keep(void* block, size_t bytes);

  std::atomic<size_t> bytes_{0};  // what is kept included
  std::atomic<size_t> peak_{0};
  std::atomic<bool> keeping_{false};
  std::mutex mutex_;
  std::vector<Kept> kept_;
};

// 64-byte aligned; null: the system has none. On the account of this thread's scope, if there is one.
void* allocate_for_ort(size_t size);
void free_for_ort(void* memory);

}  // namespace inferneo::onnx
