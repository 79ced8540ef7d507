// SIGINT and SIGTERM as calls on an ordinary thread instead of in a signal handler.
//
// Make one at the start of main, before any other thread: the signals are blocked in the making thread and in all that
// it starts later. Without a handler a signal ends the program at once with 128 + its number. SIGPIPE is ignored.
#pragma once

#include <functional>
#include <mutex>
#include <thread>

namespace inferneo {

class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  using Handler = std::function<void(int signal, int count)>;  // count: 1 for the first since the handler was set

  // While a Scope lives its handler is called; afterwards the one before it. Scopes end in reverse order.
  class Scope {
   public:
    Scope(Signals& signals, Handler handler);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Signals& signals_;
    Handler previous_;
    int previous_count_;
  };

 private:
  void loop();

  std::mutex mutex_;  // held during a call of the handler, so that a Scope's end waits for it
  Handler handler_;
  int count_ = 0;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace inferneo
