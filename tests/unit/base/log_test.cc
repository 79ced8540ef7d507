// The log when nobody reads it.
#include "base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>

namespace inferneo {
namespace {

// Standard error is a pipe that nobody reads, as under a collector that has stopped.
class UnreadLog : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::pipe2(pipe_.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::fcntl(pipe_[0], F_SETFL, O_NONBLOCK), 0);
    saved_ = ::dup(STDERR_FILENO);
    ::dup2(pipe_[1], STDERR_FILENO);
  }
  void TearDown() override {
    if (saved_ >= 0) ::dup2(saved_, STDERR_FILENO);
    for (const int fd : {saved_, pipe_[0], pipe_[1]}) ::close(fd);
  }
  std::string read_all() const {
    std::string text;
    std::array<char, 4096> chunk;
    for (ssize_t n = 0; (n = ::read(pipe_[0], chunk.data(), chunk.size())) > 0;) {
      text.append(chunk.data(), static_cast<size_t>(n));
    }
    return text;
  }

  std::array<int, 2> pipe_{-1, -1};
  int saved_ = -1;
};

TEST_F(UnreadLog, LosesLinesRatherThanTimeAndSaysHowMany) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 5'000; ++i) log_warning("line {} of a log that nobody reads", i);
  log_warning("{}", std::string(1 << 20, 'x'));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  const std::string first = read_all();
  EXPECT_NE(first.find("line 0 of"), std::string::npos);
  EXPECT_EQ(first.find("line 4999 of"), std::string::npos) << "the pipe held them all: the test proves nothing";
  log_warning("there is room again");
  const std::string then = read_all();
  EXPECT_NE(then.find("lines of the log were lost"), std::string::npos) << then;
  EXPECT_NE(then.find("there is room again"), std::string::npos);
  log_warning("{}", std::string(1 << 20, 'x'));
  EXPECT_LT(read_all().size(), 4096U) << "one line is one piece";
}

TEST_F(UnreadLog, OneMessageIsOneLineOfText) {
  log_warning("a\n2026-01-01 error forged\r\x1b[31mred\x07");
  const std::string line = read_all();
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  EXPECT_EQ(line.find_first_of("\r\x1b\x07"), std::string::npos) << line;
}

TEST_F(UnreadLog, AClosedStreamIsNoReasonToStop) {
  ::close(STDERR_FILENO);
  for (int i = 0; i < 100; ++i) log_warning("nobody is there");
}

}  // namespace
}  // namespace inferneo
