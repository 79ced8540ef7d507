#include "serving/stop_filter.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace inferneo {
namespace {

struct Answer {
  std::string text;
  std::string stop;
};

Answer run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopFilter filter(stops);
  Answer answer;
  for (const std::string& piece : pieces) {
    StopFilter::Output output = filter.push(piece);
    answer.text += output.text;
    if (output.stop) {
      answer.stop = *output.stop;
      return answer;
    }
  }
  answer.text += filter.flush();
  return answer;
}

TEST(StopFilter, HoldsBackWhatMayBecomeAStop) {
  StopFilter filter({"END", "\n\n"});
  EXPECT_EQ(filter.push("one E").text, "one ");
  EXPECT_EQ(filter.push("N").text, "");
  EXPECT_EQ(filter.push("TER\n").text, "ENTER");
  const StopFilter::Output output = filter.push("\nmore");
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(output.stop, "\n\n");
}

TEST(StopFilter, FlushGivesWhatWasHeld) {
  EXPECT_EQ(run({"stop"}, {"do not sto"}).text, "do not sto");
  EXPECT_EQ(run({}, {"any", "thing"}).text, "anything");
  EXPECT_EQ(run({""}, {"any"}).text, "any");
}

TEST(StopFilter, TheStopThatIsCompleteFirstWins) {
  EXPECT_EQ(run({"abcd", "c"}, {"xabcd"}).text, "xab");
  const Answer longer = run({"c", "bc"}, {"abc"});
  EXPECT_EQ(longer.text, "a");
  EXPECT_EQ(longer.stop, "bc");
}

// The law: any cutting of the text gives the same answer, equal to a scan of the whole for the earliest complete stop.
TEST(StopFilter, CuttingTheTextChangesNothing) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    const auto word = [&](size_t most) {
      std::string made;
      const size_t length = 1 + random() % most;
      for (size_t i = 0; i < length; ++i) made += static_cast<char>('a' + random() % 2);
      return made;
    };
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(5));
    const std::string text = word(30);

    Answer expected{text, ""};
    for (size_t end = 1; end <= text.size() && expected.stop.empty(); ++end) {
      for (const std::string& stop : stops) {
        if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
            stop.size() > expected.stop.size()) {
          expected = {text.substr(0, end - stop.size()), stop};
        }
      }
    }

    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 4;
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    const Answer cut = run(stops, pieces);
    const Answer whole = run(stops, {text});
    ASSERT_EQ(cut.text, expected.text) << text;
    ASSERT_EQ(cut.stop, expected.stop) << text;
    ASSERT_EQ(whole.text, expected.text) << text;
  }
}

}  // namespace
}  // namespace inferneo
