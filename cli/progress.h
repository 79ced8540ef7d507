// A progress line for loading and downloading models: a bar with its rate and the time left, on a terminal, drawn only
// when it takes over a second.
//
// update() may be called from any thread. Nothing is drawn with `quiet` or where the error stream is no terminal.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "cli/terminal.h"

namespace inferneo {

struct ProgressState {
  std::string label;  // the model
  std::string stage;  // "reading weights"
  uint64_t done = 0;  // bytes
  uint64_t total = 0;
  double rate = 0.0;  // bytes per second, where the source knows better than its stages tell; 0: measured here
};

// The line, without a newline, at most `width` columns, for which the bar shrinks. rate: bytes per second of this
// stage; 0: not known yet.
std::string progress_line(const ProgressState& state, double rate, int width);

class ProgressLine {
 public:
  ProgressLine(Terminal& terminal, const Clock& clock, bool quiet);
  ~ProgressLine() { clear(); }

  void update(const ProgressState& state);
  void clear();  // takes the line off the screen

 private:
  Terminal& terminal_;
  const Clock& clock_;
  const bool enabled_;
  std::mutex mutex_;
  TimePoint begin_;        // of everything
  TimePoint stage_begin_;  // of the stage shown
  TimePoint drawn_;
  std::string stage_;
  uint64_t stage_offset_ = 0;  // bytes already done when the stage began
  bool visible_ = false;
};

}  // namespace inferneo
