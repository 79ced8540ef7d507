// Where a command writes: results to the output, everything else (progress, hints, statistics) to the error stream.
//
// Knows which streams are terminals, whether colour is wanted (NO_COLOR, TERM=dumb), and how wide the screen is.
// A reader that has gone away is no error of ours: write() then returns false and the command ends.
// Thread-safe: a call writes its bytes whole.
#pragma once

#include <unistd.h>

#include <mutex>
#include <string>
#include <string_view>

#include "base/config/environment.h"

namespace inferneo {

class Terminal {
 public:
  explicit Terminal(const Environment& environment, int in = STDIN_FILENO, int out = STDOUT_FILENO,
                    int err = STDERR_FILENO);

  bool in_is_tty() const { return in_is_tty_; }
  bool out_is_tty() const { return out_is_tty_; }
  bool err_is_tty() const { return err_is_tty_; }
  int in() const { return in_; }
  int width() const;  // columns of the error stream's screen; 80 when it has none

  bool write(std::string_view text);             // to the output; false once nobody reads it
  void note(std::string_view text);              // to the error stream
  std::string dim(std::string_view text) const;  // for note(): dimmed where that can be seen
  // Model output for write(): on a terminal without control characters, which could drive it.
  std::string shown(std::string_view text) const;

 private:
  const int in_;
  const int out_;
  const int err_;
  const bool in_is_tty_;
  const bool out_is_tty_;
  const bool err_is_tty_;
  const bool color_;
  std::mutex mutex_;
  bool reader_gone_ = false;
};

// `text` without C0 and C1 control characters and DEL, but newlines and tabs.
std::string without_control_characters(std::string_view text);

}  // namespace inferneo
