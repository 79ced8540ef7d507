#include "tensor/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace inferneo {
namespace {

// Read by the signal handler, hence lock-free atomics in static storage. `end` 0 marks a free slot and is written last.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> truncated{false};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free);

std::array<Slot, kMaxGuardedMappings> g_slots;
std::mutex g_slots_mutex;
struct sigaction g_previous;
thread_local UnguardedMappings* t_unguarded = nullptr;

// Of the page at `address` alone: where its mapping ends is not known.
bool replace_unguarded(const siginfo_t& info, uintptr_t page, size_t page_bytes) {
  UnguardedMappings* const scope = t_unguarded;
  if (scope == nullptr || info.si_code != BUS_ADRERR) return false;
  void* const zeroes = mmap(reinterpret_cast<void*>(page), page_bytes, PROT_READ | PROT_WRITE,
                            MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (zeroes == MAP_FAILED) return false;
  scope->note();
  return true;
}

void on_sigbus(int signal_number, siginfo_t* info, void* context) {
  constexpr uintptr_t kPageMask = 4095;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Slot& slot : g_slots) {
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    const uintptr_t begin = slot.begin.load(std::memory_order_relaxed);
    if (end == 0 || address < begin || address >= end) continue;
    const uintptr_t page = address & ~kPageMask;
    const uintptr_t last = (end + kPageMask) & ~kPageMask;
    void* zeroes =
        mmap(reinterpret_cast<void*>(page), last - page, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeroes == MAP_FAILED) break;
    slot.truncated.store(true, std::memory_order_release);
    return;
  }
  if (replace_unguarded(*info, address & ~kPageMask, kPageMask + 1)) return;
  if ((g_previous.sa_flags & SA_SIGINFO) != 0 && g_previous.sa_sigaction != nullptr) {
    g_previous.sa_sigaction(signal_number, info, context);
    return;
  }
  signal(SIGBUS, SIG_DFL);  // the faulting instruction runs again and ends the process as it would have
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &g_previous);
  });
}

}  // namespace

int guard_mapping(const std::byte* data, size_t size) {
  install_handler();
  std::lock_guard lock(g_slots_mutex);
  for (int i = 0; i < kMaxGuardedMappings; ++i) {
    Slot& slot = g_slots[static_cast<size_t>(i)];
    if (slot.end.load(std::memory_order_relaxed) != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    slot.truncated.store(false, std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_relaxed);
    slot.end.store(begin + size, std::memory_order_release);
    return i;
  }
  return -1;
}

void unguard_mapping(int slot) {
  if (slot < 0) return;
  std::lock_guard lock(g_slots_mutex);
  g_slots[static_cast<size_t>(slot)].end.store(0, std::memory_order_release);
}

UnguardedMappings::UnguardedMappings() : before_(t_unguarded) {
  install_handler();
  t_unguarded = this;
}

UnguardedMappings::~UnguardedMappings() { t_unguarded = before_; }

bool mapping_truncated(int slot) {
  return slot >= 0 && g_slots[static_cast<size_t>(slot)].truncated.load(std::memory_order_acquire);
}

}  // namespace inferneo
