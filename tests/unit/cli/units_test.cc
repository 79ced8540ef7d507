#include "cli/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/config/time_value.h"
#include "manager/registry_records.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

TEST(Units, KeepAliveIsReadAsPeopleWriteIt) {
  const std::pair<const char*, std::optional<int64_t>> cases[] = {{"0", 0},
                                                                  {"300", 300},
                                                                  {"300s", 300},
                                                                  {"10m", 600},
                                                                  {"2h", 7200},
                                                                  {"1.5h", 5400},
                                                                  {"1h30m", 5400},
                                                                  {"1m30s", 90},
                                                                  {"1d", 86'400},
                                                                  {"forever", kKeepForever},
                                                                  {"-1", kKeepForever},
                                                                  {"default", std::nullopt}};
  for (const auto& [text, seconds] : cases) {
    const auto parsed = parse_keep_alive(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, seconds) << text;
  }
}

TEST(Units, WhatIsNoTimeIsRefused) {
  for (const std::string text : {"",      " ",    "m",    "10 m",   "10x",  "-2",  "-10m",    "+5",
                                 "1e3",   "0x10", "inf",  "nan",    "1,5h", "0.5", "1.0001s", "99999999999999999999",
                                 "4000d", "10mm", "1h30", "1h30m5", "5m ",  ".5h", "ten",     "for ever"}) {
    const auto parsed = parse_keep_alive(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(parsed.error().message, HasSubstr("expected a time such as")) << text;
  }
  EXPECT_LT(parse_keep_alive(std::string(100'000, '9')).error().message.size(), 300U);
}

TEST(Units, SecondsMayHaveFractions) {
  EXPECT_EQ(*parse_seconds("2.5", "--timeout"), 2.5);
  EXPECT_EQ(*parse_seconds("1m", "--timeout"), 60.0);
  for (const std::string text : {"", "-1", "x", "2d", "1e9", "nan"}) {
    const auto parsed = parse_seconds(text, "--timeout");
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(parsed.error().message, ::testing::StartsWith("--timeout: expected seconds")) << text;
  }
}

TEST(Units, SizesAndTimesAreShort) {
  EXPECT_EQ(size_text(0), "0 bytes");
  EXPECT_EQ(size_text(1023), "1023 bytes");
  EXPECT_EQ(size_text(1024), "1.00 KiB");
  EXPECT_EQ(size_text(uint64_t{412} << 20), "412 MiB");
  EXPECT_EQ(size_text(uint64_t{5} << 28), "1.25 GiB");
  EXPECT_EQ(size_text((uint64_t{1} << 30) - 1), "1.00 GiB") << "never 1024 MiB";
  EXPECT_THAT(size_text(std::numeric_limits<uint64_t>::max()), ::testing::EndsWith(" TiB"));

  EXPECT_EQ(duration_text(0.0), "0.00 s");
  EXPECT_EQ(duration_text(0.354), "0.35 s");
  EXPECT_EQ(duration_text(1.24), "1.2 s");
  EXPECT_EQ(duration_text(59.9), "59 s");
  EXPECT_EQ(duration_text(60.0), "1 min");
  EXPECT_EQ(duration_text(7200.0), "2 h");
  EXPECT_EQ(duration_text(86'400.0), "1 day");
  EXPECT_EQ(duration_text(200'000.0), "2 days");
  EXPECT_EQ(duration_text(1e300), "3660 days");
  EXPECT_EQ(duration_text(-1.0), "-");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "-");

  EXPECT_EQ(age_text(-100), "just now");
  EXPECT_EQ(age_text(12), "12 s ago");
  EXPECT_EQ(age_text(200), "3 min ago");
  EXPECT_EQ(age_text(86'400 * 3), "3 days ago");
}

}  // namespace
}  // namespace inferneo
