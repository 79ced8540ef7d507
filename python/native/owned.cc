#include "owned.h"

#include <pthread.h>

#include <atomic>

namespace inferneo::python {
namespace {

std::atomic<pid_t> g_process{0};

void look_again() { g_process.store(::getpid(), std::memory_order_relaxed); }

pid_t first_look() {
  (void)::pthread_atfork(nullptr, nullptr, &look_again);  // fails without memory, when nothing here works
  look_again();
  return g_process.load(std::memory_order_relaxed);
}

}  // namespace

pid_t this_process() {
  static const pid_t first = first_look();
  (void)first;
  return g_process.load(std::memory_order_relaxed);
}

}  // namespace inferneo::python
