#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr Duration kPatience = std::chrono::seconds(1);
constexpr Duration kRedraw = std::chrono::milliseconds(100);
constexpr int kBarWidth = 24;

std::string bar(double share) {
  const int full = static_cast<int>(share * kBarWidth);
  return "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kBarWidth - full), '.') +
         "]";
}

}  // namespace

std::string progress_line(const ProgressState& state, double rate, int width) {
  std::string line = fmt::format("{}: {}", state.label, state.stage);
  if (state.total > 0) {
    const double share = std::min(1.0, static_cast<double>(state.done) / static_cast<double>(state.total));
    line += fmt::format("  {} {:3.0f} %", bar(share), share * 100.0);
    if (rate > 0.0) {
      const double left = static_cast<double>(state.total - std::min(state.done, state.total)) / rate;
      line += fmt::format("  {:.2f} GB/s  {:.0f} s left", rate / 1e9, left);
    }
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
  terminal_.note("\r\033[K" + progress_line(state, seconds > 0.0 ? moved / seconds : 0.0, terminal_.width()));
  drawn_ = now;
  visible_ = true;
}

void ProgressLine::clear() {
  const std::lock_guard lock(mutex_);
  if (visible_) terminal_.note("\r\033[K");
  visible_ = false;
}

}  // namespace inferneo
