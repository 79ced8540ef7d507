#include <gtest/gtest.h>
#include <pty.h>

#include <thread>

#include "cli/line_reader.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "fake_service.h"

namespace inferneo {
namespace {

// A terminal whose screen can be read.
class Screen {
 public:
  Screen() {
    winsize size{};
    size.ws_col = 90;
    size.ws_row = 24;
    if (::openpty(&master_, &slave_, nullptr, nullptr, &size) != 0) std::abort();
  }
  ~Screen() {
    ::close(master_);
    ::close(slave_);
  }
  int slave() const { return slave_; }
  std::string read() const {
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
    char chunk[4096];
    const ssize_t count = ::read(master_, chunk, sizeof(chunk));
    return count > 0 ? std::string(chunk, static_cast<size_t>(count)) : "";
  }

 private:
  int master_ = -1;
  int slave_ = -1;
};

std::string dimmed(const Screen& screen, Environment::Variables variables) {
  return Terminal(Environment(std::move(variables)), screen.slave(), screen.slave(), screen.slave()).dim("x");
}

TEST(Terminal, KnowsScreensFromPipes) {
  const Screen screen;
  const Pipe pipe;
  const Environment xterm(Environment::Variables{{"TERM", "xterm"}});
  const Terminal on_screen(xterm, screen.slave(), screen.slave(), screen.slave());
  EXPECT_TRUE(on_screen.in_is_tty() && on_screen.out_is_tty() && on_screen.err_is_tty());
  EXPECT_EQ(on_screen.width(), 90);
  const Terminal on_pipe(xterm, pipe.read_end(), pipe.write_end(), pipe.write_end());
  EXPECT_FALSE(on_pipe.in_is_tty() || on_pipe.out_is_tty() || on_pipe.err_is_tty());
  EXPECT_EQ(on_pipe.width(), 80);
  EXPECT_EQ(on_pipe.dim("x"), "x");
}

TEST(Terminal, ColourOnlyWhereItIsWanted) {
  const Screen screen;
  EXPECT_EQ(dimmed(screen, {{"TERM", "xterm"}}), "\033[2mx\033[0m");
  EXPECT_EQ(dimmed(screen, {{"TERM", "xterm"}, {"NO_COLOR", "1"}}), "x");
  EXPECT_EQ(dimmed(screen, {{"TERM", "dumb"}}), "x");
  EXPECT_EQ(dimmed(screen, {}), "x");
}

TEST(Terminal, ModelOutputCannotDriveTheScreen) {
  EXPECT_EQ(without_control_characters("a\033[2Jb\x07\x7f\r\tc\n"), "a[2Jb\tc\n");
  EXPECT_EQ(without_control_characters("\xC2\x9B 31m\xC2\xA0\xC3\xA9"), " 31m\xC2\xA0\xC3\xA9")
      << "C1 goes, letters stay";
  const Pipe pipe;
  const Terminal on_pipe(Environment(), pipe.read_end(), pipe.write_end(), pipe.write_end());
  EXPECT_EQ(on_pipe.shown("\033[2J"), "\033[2J") << "a file gets every byte";
  const Screen screen;
  const Terminal on_screen(Environment(), screen.slave(), screen.slave(), screen.slave());
  EXPECT_EQ(on_screen.shown("\033[2J"), "[2J");
}

TEST(Terminal, SlowReadersGetEverything) {
  Pipe pipe;
  ::fcntl(pipe.write_end(), F_SETFL, O_NONBLOCK);
  Terminal terminal(Environment(), pipe.read_end(), pipe.write_end(), STDERR_FILENO);
  const std::string big(1 << 20, 'x');
  std::thread writer([&] {
    EXPECT_TRUE(terminal.write(big));
    pipe.close_write();
  });
  size_t total = 0;
  char chunk[4096];
  for (ssize_t count = 0; (count = ::read(pipe.read_end(), chunk, sizeof(chunk))) > 0;) {
    total += static_cast<size_t>(count);
  }
  writer.join();
  EXPECT_EQ(total, big.size());
}

TEST(Progress, LineSaysWhatHowFastAndHowLong) {
  EXPECT_EQ(progress_line({"story", "reading weights", 1'000'000'000, 4'000'000'000}, 1.5e9, 100),
            "story: reading weights  [######..................]  25 %  1.50 GB/s  2 s left");
  EXPECT_EQ(progress_line({"story", "packing", 0, 0}, 0.0, 100), "story: packing");
  EXPECT_NE(progress_line({"story", "reading weights", 9, 4}, 1.0, 100).find("[########################] 100 %"),
            std::string::npos);
  EXPECT_EQ(progress_line({"story", "reading weights", 1, 4}, 1.0, 20).size(), 19U);
  EXPECT_EQ(progress_line({"story", "file 1 of 2", 1'000'000'000, 4'000'000'000}, 3e7, 60),
            "story: file 1 of 2  [##......]  25 %  30.0 MB/s  2 min left");
  EXPECT_NE(progress_line({"story", "s", 0, 4'000'000'000'000}, 1e7, 100).find("111.1 h left"), std::string::npos);
}

TEST(Progress, DrawsAfterASecondAndCleansUp) {
  const Screen screen;
  ManualClock clock;
  Terminal terminal(Environment(), screen.slave(), screen.slave(), screen.slave());
  {
    ProgressLine line(terminal, clock, false);
    line.update({"m", "reading", 0, 4'000'000'000});
    clock.advance(std::chrono::milliseconds(900));
    line.update({"m", "reading", 900'000'000, 4'000'000'000});
    EXPECT_EQ(screen.read(), "") << "a short load draws nothing";
    clock.advance(std::chrono::milliseconds(1100));
    line.update({"m", "reading", 2'000'000'000, 4'000'000'000});
    const std::string drawn = screen.read();
    EXPECT_NE(drawn.find("50 %"), std::string::npos) << drawn;
    EXPECT_NE(drawn.find("1.00 GB/s"), std::string::npos) << drawn;
    clock.advance(std::chrono::milliseconds(50));
    line.update({"m", "reading", 2'100'000'000, 4'000'000'000});
    EXPECT_EQ(screen.read(), "") << "not more often than ten times a second";
  }
  EXPECT_EQ(screen.read(), "\r\033[K");
}

TEST(Progress, QuietAndPipesShowNothing) {
  ManualClock clock;
  const Screen screen;
  Terminal terminal(Environment(), screen.slave(), screen.slave(), screen.slave());
  ProgressLine quiet(terminal, clock, true);
  Pipe pipe;
  Terminal piped(Environment(), pipe.read_end(), pipe.write_end(), pipe.write_end());
  ProgressLine log(piped, clock, false);
  for (int i = 0; i < 3; ++i) {
    clock.advance(std::chrono::seconds(1));
    quiet.update({"m", "s", 1, 2});
    log.update({"m", "s", 1, 2});
  }
  EXPECT_EQ(screen.read(), "");
  EXPECT_EQ(pipe.take_all(), "");
}

TEST(LineReader, LinesWhateverTheirEnds) {
  Pipe pipe;
  pipe.put("one\r\n\ntwo\nlast");
  pipe.close_write();
  LineReader reader(pipe.read_end());
  EXPECT_EQ(reader.line(), "one");
  EXPECT_EQ(reader.line(), "");
  EXPECT_EQ(reader.line(), "two");
  EXPECT_EQ(reader.line(), "last");
  EXPECT_FALSE(reader.line().has_value());
}

TEST(LineReader, UnfinishedMessagesEndWithTheInput) {
  Pipe pipe;
  pipe.put("\"\"\"open\nend");
  pipe.close_write();
  LineReader reader(pipe.read_end());
  EXPECT_EQ(reader.message([](bool) {}), "open\nend");
  EXPECT_FALSE(reader.message([](bool) {}).has_value());
}

}  // namespace
}  // namespace inferneo
