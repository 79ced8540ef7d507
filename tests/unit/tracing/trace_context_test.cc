// W3C Trace Context: what is a traceparent, what is not, and that nothing else ever passes for one.
#include "tracing/trace_context.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

namespace inferneo {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kParent = "b7ad6b7169203331";
const std::string kGood = "00-" + kTrace + "-" + kParent + "-01";

TEST(TraceParent, IsReadAsTheStandardWritesIt) {
  const auto parent = parse_traceparent(kGood);
  ASSERT_TRUE(parent.has_value());
  EXPECT_EQ(parent->trace.hex(), kTrace);
  EXPECT_EQ(parent->span.hex(), kParent);
  EXPECT_TRUE(parent->sampled());
  EXPECT_EQ(format_traceparent(*parent), kGood);
  EXPECT_FALSE(parse_traceparent("00-" + kTrace + "-" + kParent + "-00")->sampled());
}

TEST(TraceParent, FlagsThatNobodyHasDefinedAreDropped) {
  const auto parent = parse_traceparent("00-" + kTrace + "-" + kParent + "-ff");
  ASSERT_TRUE(parent.has_value());
  EXPECT_EQ(parent->flags, kSampledFlag | kRandomFlag);
  EXPECT_FALSE(parse_traceparent("00-" + kTrace + "-" + kParent + "-fe")->sampled());
}

TEST(TraceParent, LaterVersionsMaySayMore) {
  for (const std::string version : {"01", "02", "cc", "fe"}) {
    const std::string same = version + kGood.substr(2);
    for (const std::string more : {"", "-", "-what-the-future-will-be-like", "-01-02"}) {
      const auto parent = parse_traceparent(same + more);
      ASSERT_TRUE(parent.has_value()) << same + more;
      EXPECT_EQ(parent->trace.hex(), kTrace);
      EXPECT_TRUE(parent->sampled());
    }
    EXPECT_FALSE(parse_traceparent(same + ".more").has_value());
    EXPECT_FALSE(parse_traceparent(same + "0").has_value());
  }
}

TEST(TraceParent, WhatIsNotExactlyOneIsNone) {
  const std::string zeros(32, '0');
  for (const std::string& text : {std::string(),
                                  std::string("00"),
                                  kGood.substr(0, 54),
                                  kGood + "0",
                                  kGood + "-",
                                  kGood + "-00",
                                  " " + kGood,
                                  kGood + " ",
                                  "ff" + kGood.substr(2),
                                  "ff" + kGood.substr(2) + "-00",
                                  "0" + kGood,
                                  "00-" + zeros + "-" + kParent + "-01",
                                  "00-" + kTrace + "-" + zeros.substr(16) + "-01",
                                  "00-0AF7651916CD43DD8448EB211C80319C-" + kParent + "-01",
                                  "00-" + kTrace + "-B7AD6B7169203331-01",
                                  "0A" + kGood.substr(2),
                                  "00-" + kTrace + "-" + kParent + "-0A",
                                  "00-" + kTrace + "-" + kParent + "-1",
                                  "00_" + kTrace + "-" + kParent + "-01",
                                  "00-" + kTrace + "_" + kParent + "-01",
                                  "00-" + kTrace + "-" + kParent + "_01",
                                  "0x-" + kTrace + "-" + kParent + "-01",
                                  "00-" + kTrace.substr(1) + "g-" + kParent + "-01",
                                  kGood + "," + kGood,
                                  "00-" + kTrace + "-" + kParent + "-01\n",
                                  std::string("\0", 1) + kGood.substr(1)}) {
    EXPECT_FALSE(parse_traceparent(text).has_value()) << '"' << text << '"';
  }
}

// Any one byte of a good one changed: it is either refused, or reads back as it was written.
TEST(TraceParent, NoChangeOfOneBytePassesUnseen) {
  for (size_t place = 0; place < kGood.size(); ++place) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string text = kGood;
      text[place] = static_cast<char>(byte);
      const auto parent = parse_traceparent(text);
      if (!parent) continue;
      EXPECT_EQ(parent->trace.hex(), text.substr(3, 32));
      EXPECT_EQ(parent->span.hex(), text.substr(36, 16));
      EXPECT_EQ(parent->sampled(), (std::stoi(text.substr(53), nullptr, 16) & 1) == 1);
      EXPECT_NE(text.substr(0, 2), "ff");
    }
  }
}

TEST(TraceParent, RandomBytesAreNone) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string text(random() % 80, '\0');
    for (char& c : text) c = "0123456789abcdef-gG \xff"[random() % 21];
    if (const auto parent = parse_traceparent(text)) {
      EXPECT_GE(text.size(), 55U);
      EXPECT_EQ(parent->trace.hex(), text.substr(3, 32));
    }
  }
}

TEST(TraceState, IsAListOfKeysAndValues) {
  for (const std::string& text :
       {std::string("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"), std::string("a=1"), std::string("1a=1"),
        std::string("tenant@vendor=x/y:z"), std::string("a=1 , b=2"), std::string("a=1,,b=2"), std::string("a= 1"),
        std::string("a_-*/b=~!@#$%^&*()"), "a=" + std::string(256, 'v'), std::string(256, 'k') + "=v"}) {
    EXPECT_TRUE(is_tracestate(text)) << text;
  }
  std::string many;
  for (int i = 0; i < 33; ++i) many += (i == 0 ? "k" : ",k") + std::to_string(i) + "=v";
  for (const std::string& text :
       {std::string(), std::string(","), std::string("a"), std::string("a="), std::string("=1"), std::string("A=1"),
        std::string("a=1,a=2"), std::string("a b=1"), std::string("a=1=2"), std::string("a@b@c=1"),
        std::string("a=\x01"), std::string("a=\xc3\xa9"), std::string("_a=1"), many, "a=" + std::string(257, 'v'),
        std::string(257, 'k') + "=v",
        "a=" + std::string(200, 'v') + ",b=" + std::string(200, 'v') + ",c=" + std::string(200, 'v')}) {
    EXPECT_FALSE(is_tracestate(text)) << text;
  }
  EXPECT_TRUE(is_tracestate(many.substr(0, many.rfind(','))));
}

TEST(TraceIds, AreNeitherZeroNorTwice) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(seen.insert(new_trace_id().hex()).second);
    EXPECT_TRUE(seen.insert(new_span_id().hex()).second);
  }
}

TEST(Sampling, TakesTheShareThatItIsTold) {
  for (const double ratio : {0.0, 0.01, 0.25, 0.5, 0.9, 1.0}) {
    int sampled = 0;
    constexpr int kIds = 20'000;
    for (int i = 0; i < kIds; ++i) sampled += is_sampled(new_trace_id(), ratio) ? 1 : 0;
    EXPECT_NEAR(sampled / double{kIds}, ratio, 0.03) << ratio;
  }
}

TEST(Sampling, IsTheTraceIdsAlone) {
  TraceId low;
  low.bytes[0] = 0xff;  // not of the random part
  TraceId high = low;
  for (size_t i = 9; i < 16; ++i) high.bytes[i] = 0xff;
  EXPECT_FALSE(is_sampled(low, 0.999));
  EXPECT_TRUE(is_sampled(low, 1.0));
  EXPECT_TRUE(is_sampled(high, 1e-6));
  EXPECT_FALSE(is_sampled(high, 0.0));
  // Who is sampled at some share is sampled at every larger one.
  for (int i = 0; i < 1000; ++i) {
    const TraceId id = new_trace_id();
    if (is_sampled(id, 0.3)) {
      EXPECT_TRUE(is_sampled(id, 0.4));
    }
  }
}

}  // namespace
}  // namespace inferneo
