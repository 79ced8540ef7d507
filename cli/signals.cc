#include "cli/signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <utility>

#include "base/result.h"

namespace inferneo {

Signals::Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  signal_fd_ = ::signalfd(-1, &set, SFD_CLOEXEC);
  stop_fd_ = ::eventfd(0, EFD_CLOEXEC);
  INFERNEO_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0, "no descriptors for signals");
  thread_ = std::thread([this] { loop(); });
}

Signals::~Signals() {
  const uint64_t one = 1;
  if (::write(stop_fd_, &one, sizeof(one)) == sizeof(one)) thread_.join();
  ::close(signal_fd_);
  ::close(stop_fd_);
}

void Signals::loop() {
  for (;;) {
    std::array<pollfd, 2> waits = {pollfd{signal_fd_, POLLIN, 0}, pollfd{stop_fd_, POLLIN, 0}};
    if (::poll(waits.data(), waits.size(), -1) < 0) continue;
    if (waits[1].revents != 0) return;
    signalfd_siginfo info{};
    if (::read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    const std::lock_guard lock(mutex_);
    if (!handler_) ::_exit(128 + signal);
    handler_(signal, ++count_);
  }
}

Signals::Scope::Scope(Signals& signals, Handler handler) : signals_(signals) {
  const std::lock_guard lock(signals_.mutex_);
  previous_ = std::exchange(signals_.handler_, std::move(handler));
  previous_count_ = std::exchange(signals_.count_, 0);
}

Signals::Scope::~Scope() {
  const std::lock_guard lock(signals_.mutex_);
  signals_.handler_ = std::move(previous_);
  signals_.count_ = previous_count_;
}

}  // namespace inferneo
