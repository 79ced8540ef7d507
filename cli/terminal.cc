#include "cli/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace inferneo {
namespace {

// All of it, waiting where the stream cannot take more; false when the stream is broken.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {
      pollfd wait{fd, POLLOUT, 0};
      ::poll(&wait, 1, -1);
    } else if (written == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

Terminal::Terminal(const Environment& environment, int in, int out, int err)
    : in_(in),
      out_(out),
      err_(err),
      in_is_tty_(::isatty(in) == 1),
      out_is_tty_(::isatty(out) == 1),
      err_is_tty_(::isatty(err) == 1),
      color_(err_is_tty_ && !environment.get("NO_COLOR") && environment.get("TERM").value_or("dumb") != "dumb") {}

int Terminal::width() const {
  constexpr int kDefault = 80;
  winsize size{};
  return ::ioctl(err_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefault;
}

bool Terminal::write(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (!reader_gone_ && !write_all(out_, text)) reader_gone_ = true;
  return !reader_gone_;
}

void Terminal::note(std::string_view text) {
  const std::lock_guard lock(mutex_);
  write_all(err_, text);
}

std::string Terminal::dim(std::string_view text) const {
  return color_ ? "\033[2m" + std::string(text) + "\033[0m" : std::string(text);
}

std::string Terminal::shown(std::string_view text) const {
  return out_is_tty_ ? without_control_characters(text) : std::string(text);
}

std::string without_control_characters(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // C1 in UTF-8 is C2 80 to C2 9F.
    if (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      ++i;
      continue;
    }
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) continue;
    result += static_cast<char>(c);
  }
  return result;
}

}  // namespace inferneo
