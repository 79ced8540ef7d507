#include "cli/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace inferneo {
namespace {
constexpr std::string_view kFence = "\"\"\"";
}

bool LineReader::fill() {
  std::array<char, 4096> chunk;
  for (;;) {
    const ssize_t count = ::read(fd_, chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    buffer_.append(chunk.data(), static_cast<size_t>(count));
    return true;
  }
}

std::optional<std::string> LineReader::line() {
  size_t end = 0;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (fill()) continue;
    if (buffer_.empty()) return std::nullopt;
    return std::exchange(buffer_, {});
  }
  std::string result = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  if (!result.empty() && result.back() == '\r') result.pop_back();
  return result;
}

std::optional<std::string> LineReader::message(const std::function<void(bool)>& prompt) {
  prompt(false);
  auto next = line();
  if (!next) return std::nullopt;
  std::string text = std::move(*next);
  if (text.starts_with(kFence)) {
    text.erase(0, kFence.size());
    size_t end = 0;
    while ((end = text.find(kFence)) == std::string::npos) {
      prompt(true);
      next = line();
      if (!next) return text;
      text += (text.empty() ? "" : "\n") + *next;
    }
    if (end > 0 && text[end - 1] == '\n') --end;
    return text.substr(0, end);
  }
  while (text.ends_with('\\')) {
    text.back() = '\n';
    prompt(true);
    next = line();
    if (!next) return text;
    text += *next;
  }
  return text;
}

std::string LineReader::rest() {
  while (fill()) {
  }
  return std::exchange(buffer_, {});
}

}  // namespace inferneo
