// The memory that ONNX Runtime takes, counted: one allocator for the whole library, and one account for each session.
//
// Whoever calls into the library says whose account it is for the time of the call (OrtAccount::Scope); a block goes
// back to the account that it came from, whichever thread frees it. So a session's weights and its workspace are known
// to the byte, where the library's own arena would be one lump.
// Threads: all of it may be used from any thread. An account outlives the session that allocates on it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace inferneo::onnx {

class OrtAccount {
 public:
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  size_t peak() const { return peak_.load(std::memory_order_relaxed); }
  void reset_peak() { peak_.store(bytes(), std::memory_order_relaxed); }

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
  void change(int64_t bytes);

  std::atomic<size_t> bytes_{0};
  std::atomic<size_t> peak_{0};
};

// 64-byte aligned; null: the system has none. On the account of this thread's scope, if there is one.
void* allocate_for_ort(size_t size);
void free_for_ort(void* memory);

}  // namespace inferneo::onnx
