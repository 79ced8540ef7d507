#include "base/log.h"

#include <poll.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <string>

namespace inferneo {
namespace {

constexpr size_t kMaxMessage = 3000;  // with its time and level less than the 4096 bytes that a pipe takes in one piece
constexpr int kPatienceMs = 50;

using StderrSink = spdlog::sinks::stderr_color_sink_mt;

// Standard error, but never waited for long: whoever reads it may have stopped (a full pipe, a terminal on hold), and
// requests must go on. Lines that find no room are lost, and counted once there is room again.
class PatientStderrSink final : public StderrSink {
 public:
  void log(const spdlog::details::log_msg& message) override {
    const std::lock_guard lock(lost_mutex_);
    if (!has_room(lost_ == 0 ? kPatienceMs : 0)) {
      ++lost_;
      return;
    }
    if (lost_ > 0) {
      const std::string text = fmt::format("{} lines of the log were lost: nobody read it", lost_);
      lost_ = 0;
      StderrSink::log({message.logger_name, spdlog::level::warn, text});
    }
    StderrSink::log(message);
  }

 private:
  static bool has_room(int patience_ms) {
    pollfd stream{STDERR_FILENO, POLLOUT, 0};
    return ::poll(&stream, 1, patience_ms) != 0;  // a closed or broken stream does not block either
  }

  std::mutex lost_mutex_;
  size_t lost_ = 0;
};

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("inferneo", std::make_shared<PatientStderrSink>());
    made->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-5l%$ %v");
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::off:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

}  // namespace

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }

void log_message(LogLevel level, std::string_view message) {
  // One line, whatever files and peers put into it: it can neither look like another line nor command a terminal.
  std::string line(message.substr(0, kMaxMessage));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  logger().log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace inferneo
