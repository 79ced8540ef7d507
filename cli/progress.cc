#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr Duration kPatience = std::chrono::seconds(1);
constexpr Duration kRedraw = std::chrono::milliseconds(100);
constexpr int kBarWidth = 24;
constexpr int kShortestBar = 8;

std::string bar(double share, int width) {
  const int full = static_cast<int>(share * width);
  return "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(width - full), '.') + "]";
}

std::string byte_rate_text(double rate) {
  return rate < 1e9 ? fmt::format("{:.1f} MB/s", rate / 1e6) : fmt::format("{:.2f} GB/s", rate / 1e9);
}

std::string time_text(double seconds) {
  if (seconds < 100.0) return fmt::format("{:.0f} s", seconds);
  const double minutes = seconds / 60.0;
  return minutes < 100.0 ? fmt::format("{:.0f} min", minutes) : fmt::format("{:.1f} h", minutes / 60.0);
}

}  // namespace

std::string progress_line(const ProgressState& state, double rate, int width) {
  std::string line = fmt::format("{}: {}", state.label, state.stage);
  if (state.total > 0) {
    const double share = std::min(1.0, static_cast<double>(state.done) / static_cast<double>(state.total));
    std::string numbers = fmt::format(" {:3.0f} %", share * 100.0);
    if (rate > 0.0) {
      const double left = static_cast<double>(state.total - std::min(state.done, state.total)) / rate;
      numbers += fmt::format("  {}  {} left", byte_rate_text(rate), time_text(left));
    }
    const int room = width - 1 - static_cast<int>(line.size() + numbers.size()) - 4;  // two blanks, two brackets
    line += "  " + bar(share, std::clamp(room, kShortestBar, kBarWidth)) + numbers;
  }
  return line.substr(0, static_cast<size_t>(std::max(width - 1, 1)));
}

ProgressLine::ProgressLine(Terminal& terminal, const Clock& clock, bool quiet)
    : terminal_(terminal), clock_(clock), enabled_(!quiet && terminal.err_is_tty()), begin_(clock.now()) {}

void ProgressLine::update(const ProgressState& state) {
  if (!enabled_) return;
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  const std::string stage = state.label + state.stage;
  if (stage != stage_) {
    stage_ = stage;
    stage_begin_ = now;
    stage_offset_ = state.done;
  }
  if (now - begin_ < kPatience || (visible_ && now - drawn_ < kRedraw)) return;
  const double seconds = to_seconds(now - stage_begin_);
  const double moved = static_cast<double>(state.done - std::min(stage_offset_, state.done));
  const double measured = seconds > 0.0 ? moved / seconds : 0.0;
  terminal_.note("\r\033[K" + progress_line(state, state.rate > 0.0 ? state.rate : measured, terminal_.width()));
  drawn_ = now;
  visible_ = true;
}

void ProgressLine::clear() {
  const std::lock_guard lock(mutex_);
  if (visible_) terminal_.note("\r\033[K");
  visible_ = false;
}

}  // namespace inferneo
