#include "support/cuda/simt.h"

#include <sys/mman.h>

#include <array>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#include "base/result.h"

namespace inferneo::simt {

Position position;
std::vector<uint8_t> shared_memory;

namespace {

constexpr size_t kStackBytes = size_t{96} << 10;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxShared = size_t{227} << 10;

// ---- coroutines -----------------------------------------------------------------------------------------------------
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

#if defined(__x86_64__)
extern "C" void inferneo_simt_switch(void** save, void* load);
__asm__(
    ".text\n"
    ".type inferneo_simt_switch, @function\n"
    "inferneo_simt_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size inferneo_simt_switch, .-inferneo_simt_switch\n");
#endif

struct CopyGroup {
  struct Piece {
    void* to;
    const void* from;
    size_t bytes;
    bool valid;
  };
  std::vector<Piece> pieces;
};

struct Thread {
  enum class State : uint8_t { ready, at_warp, at_block, done };
  Context context;
  State state = State::ready;
  unsigned collectives = 0;
  CopyGroup open;
  std::deque<CopyGroup> committed;
};

struct Warp {
  std::array<std::array<Slot, 32>, 2> slots;
  int arrived = 0;
};

struct Machine {
  std::byte* stacks = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  const std::function<void()>* body = nullptr;
  Context scheduler;
  int at_block = 0;
  int done = 0;
  bool any = false;
  bool any_result = false;
  unsigned long long random = 0x9E3779B97F4A7C15ULL;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_stack = nullptr;
  size_t scheduler_bytes = 0;
#endif
} machine;

std::byte* stack_of(int thread) { return machine.stacks + static_cast<size_t>(thread) * kStackBytes; }

void switch_to(Context& from, Context& to, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t bytes,
               [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack, stack, bytes);
#endif
#if defined(__x86_64__)
  inferneo_simt_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void yield(bool ends = false) {
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
#if defined(__SANITIZE_ADDRESS__)
  switch_to(self.context, machine.scheduler, machine.scheduler_stack, machine.scheduler_bytes, ends);
#else
  switch_to(self.context, machine.scheduler, nullptr, 0, ends);
#endif
}

void thread_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_bytes);
#endif
  (*machine.body)();
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
  self.state = Thread::State::done;
  ++machine.done;
  yield(true);
  INFERNEO_CHECK(false, "a thread ran on after its end");
}

void prepare(int thread) {
  Context& context = machine.threads[static_cast<size_t>(thread)].context;
#if defined(__x86_64__)
#if defined(__SANITIZE_ADDRESS__)
  // The frames that the thread before has not left: it ended in its last switch.
  __asan_unpoison_memory_region(stack_of(thread) + kStackBytes - 8192, 8192);
#endif
  // As the switch leaves a stack: six registers, then where to return to; the function sees its usual alignment.
  auto* top = reinterpret_cast<void**>(stack_of(thread) + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&thread_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
#else
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack_of(thread);
  context.context.uc_stack.ss_size = kStackBytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, thread_main, 0);
#endif
}

[[noreturn]] void hang(const std::string& what) {
  check_failed(__FILE__, __LINE__, "kernel",
               what + ", in block " + std::to_string(position.block_x) + "," + std::to_string(position.block_y) + "," +
                   std::to_string(position.block_z));
}

void release_block_if_complete() {
  const int alive = static_cast<int>(machine.threads.size()) - machine.done;
  if (machine.at_block == 0 || machine.at_block != alive) return;
  machine.at_block = 0;
  machine.any_result = machine.any;
  machine.any = false;
  for (Thread& thread : machine.threads) {
    if (thread.state == Thread::State::at_block) thread.state = Thread::State::ready;
  }
}

void run_block() {
  const auto count = static_cast<int>(machine.threads.size());
  for (int t = 0; t < count; ++t) {
    machine.threads[static_cast<size_t>(t)] = Thread();
    prepare(t);
  }
  for (Warp& warp : machine.warps) warp.arrived = 0;
  machine.at_block = machine.done = 0;
  machine.any = false;
  while (machine.done < count) {
    bool ran = false;
    machine.random = machine.random * 6364136223846793005ULL + 1442695040888963407ULL;
    const int first = static_cast<int>((machine.random >> 33) % static_cast<unsigned>(count));
    const bool backwards = (machine.random >> 32 & 1) != 0;
    for (int i = 0; i < count; ++i) {
      const int t = (first + (backwards ? count - i : i)) % count;
      Thread& thread = machine.threads[static_cast<size_t>(t)];
      if (thread.state != Thread::State::ready) continue;
      ran = true;
      position.thread = t;
      switch_to(machine.scheduler, thread.context, stack_of(t), kStackBytes, false);
    }
    release_block_if_complete();
    if (!ran && machine.done < count) {
      for (const Thread& thread : machine.threads) {
        if (thread.state == Thread::State::ready) ran = true;
      }
      if (!ran)
        hang("threads wait for others that never come: a warp has diverged, or a barrier is not reached by all");
    }
  }
}

}  // namespace

const Slot* meet_warp(const void* value, size_t bytes, const std::function<void(Slot*)>& act) {
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
  Warp& warp = machine.warps[static_cast<size_t>(position.thread / 32)];
  auto& slots = warp.slots[self.collectives++ % 2];
  if (bytes > 0) std::memcpy(slots[static_cast<size_t>(position.thread % 32)].bytes, value, bytes);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    if (act) act(slots.data());
    const int first = position.thread / 32 * 32;
    for (int t = first; t < first + 32; ++t) {
      machine.threads[static_cast<size_t>(t)].state = Thread::State::ready;
    }
  } else {
    self.state = Thread::State::at_warp;
    yield();
  }
  return slots.data();
}

bool meet_block(bool value) {
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
  machine.any = machine.any || value;
  ++machine.at_block;
  self.state = Thread::State::at_block;
  yield();
  return machine.any_result;
}

void copy_later(void* to, const void* from, size_t bytes, bool valid) {
  std::memset(to, 0xff, bytes);  // NaN until it has been waited for
  machine.threads[static_cast<size_t>(position.thread)].open.pieces.push_back({to, from, bytes, valid});
}

void commit_copies() {
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
  self.committed.push_back(std::move(self.open));
  self.open = CopyGroup();
}

void wait_copies(int pending) {
  Thread& self = machine.threads[static_cast<size_t>(position.thread)];
  while (static_cast<int>(self.committed.size()) > pending) {
    for (const CopyGroup::Piece& piece : self.committed.front().pieces) {
      if (piece.valid) {
        std::memcpy(piece.to, piece.from, piece.bytes);
      } else {
        std::memset(piece.to, 0, piece.bytes);
      }
    }
    self.committed.pop_front();
  }
}

void run_grid(const Grid& grid, const std::function<void()>& body) {
  static std::mutex mutex;  // one machine
  const std::lock_guard lock(mutex);
  INFERNEO_CHECK(grid.block >= 1 && grid.block <= kMaxThreads && grid.block % 32 == 0, "an impossible block");
  INFERNEO_CHECK(grid.shared_bytes <= kMaxShared, "more shared memory than a multiprocessor has");
  INFERNEO_CHECK(grid.y <= 65535 && grid.z <= 65535, "a grid that is too large");
  if (machine.stacks == nullptr) {
    void* stacks = mmap(nullptr, kStackBytes * kMaxThreads, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    INFERNEO_CHECK(stacks != MAP_FAILED, "no memory for the threads' stacks");
    machine.stacks = static_cast<std::byte*>(stacks);
  }
  machine.body = &body;
  machine.threads.resize(grid.block);
  machine.warps.resize(grid.block / 32);
  position.num_threads = static_cast<int>(grid.block);
  position.grid_x = static_cast<int>(grid.x);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        position.block_x = static_cast<int>(x);
        position.block_y = static_cast<int>(y);
        position.block_z = static_cast<int>(z);
        shared_memory.assign(grid.shared_bytes, 0xff);
        run_block();
      }
    }
  }
}

}  // namespace inferneo::simt

namespace inferneo::cuda {
namespace {

uint16_t element(const void* row, int i) {
  uint16_t value;
  std::memcpy(&value, static_cast<const uint8_t*>(row) + 2 * i, 2);
  return value;
}

// What the lanes' addresses say, read at once for all of them, since a warp executes the instruction as one.
void load_matrices(uint32_t (&r)[4], const void* row, bool transposed) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(row) % 16 == 0, "a matrix row that is not aligned");
  const auto read_all = [&](simt::Slot* slots) {
    const void* rows[32];
    for (int l = 0; l < 32; ++l) rows[l] = simt::read_slot<const void*>(slots, l);
    for (int l = 0; l < 32; ++l) {
      uint32_t words[4];
      for (int m = 0; m < 4; ++m) {
        uint32_t pair[2];
        for (int e = 0; e < 2; ++e) {
          const int i = l % 4 * 2 + e;
          pair[e] = transposed ? element(rows[8 * m + i], l / 4) : element(rows[8 * m + l / 4], i);
        }
        words[m] = pair[0] | pair[1] << 16;
      }
      std::memcpy(slots[l].bytes + 16, words, sizeof(words));
    }
  };
  const simt::Slot* slots = simt::meet_warp(&row, sizeof(row), read_all);
  std::memcpy(r, slots[lane()].bytes + 16, sizeof(r));
}

}  // namespace

void load_matrix_x4(uint32_t (&r)[4], const void* row) { load_matrices(r, row, false); }
void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) { load_matrices(r, row, true); }

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const simt::Slot* slots = simt::meet_warp(mine, sizeof(mine));
  const auto half = [&](int from, int word, int which) {
    uint32_t value;
    std::memcpy(&value, slots[from].bytes + 4 * word, 4);
    return bits_to_float(which == 0 ? value << 16 : value & 0xffff0000U);
  };
  for (int e = 0; e < 4; ++e) {
    const int row = lane() / 4 + e / 2 * 8;
    const int col = lane() % 4 * 2 + e % 2;
    float sum = 0.0F;
    for (int k = 0; k < 16; ++k) {
      const float x = half(row % 8 * 4 + k % 8 / 2, (row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0), k % 2);
      const float y = half(col * 4 + k % 8 / 2, 4 + (k >= 8 ? 1 : 0), k % 2);
      sum += x * y;
    }
    c[e] += sum;
  }
}

}  // namespace inferneo::cuda
