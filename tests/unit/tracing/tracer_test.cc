// Who is traced, how spans hang together, and that who is not traced pays nothing.
#include "tracing/tracer.h"

#include <gtest/gtest.h>

#include "support/counting_new.h"
#include "support/span_book.h"

namespace inferneo {
namespace {

const std::string kSampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const std::string kUnsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

TimePoint now() { return std::chrono::steady_clock::now(); }

TEST(Tracer, TheCallersDecisionCountsWhateverTheRatio) {
  testing::SpanBook book;
  for (const double ratio : {0.0, 1.0}) {
    const Tracer tracer(book, ratio);
    EXPECT_NE(tracer.begin(kSampled, "", now()), nullptr);
    EXPECT_EQ(tracer.begin(kUnsampled, "", now()), nullptr);
  }
}

TEST(Tracer, WithoutADecisionTheRatioCounts) {
  testing::SpanBook book;
  for (const std::string& parent : {std::string(), std::string("nonsense"), "ff" + kSampled.substr(2)}) {
    EXPECT_NE(Tracer(book, 1.0).begin(parent, "", now()), nullptr);
    EXPECT_EQ(Tracer(book, 0.0).begin(parent, "", now()), nullptr);
  }
  const auto trace = Tracer(book, 1.0).begin("nonsense", "a=1", now());
  EXPECT_NE(trace->trace_id().hex(), kSampled.substr(3, 32));
  EXPECT_EQ(trace->request_span("s", now()).trace_state, "") << "of a trace that is not ours to tell";
}

TEST(Tracer, WhoIsNotTracedPaysNoAllocation) {
  testing::SpanBook book;
  const Tracer tracer(book, 0.0);
  (void)tracer.begin("", "", now());  // the generator is seeded
  const uint64_t before = allocations_of_this_thread();
  for (int i = 0; i < 100; ++i) {
    (void)tracer.begin("", "", now());
    (void)tracer.begin("nonsense", "a=1", now());
    (void)tracer.begin(kUnsampled, "a=1", now());
  }
  EXPECT_EQ(allocations_of_this_thread(), before);
}

TEST(RequestTrace, SpansHangTogether) {
  testing::SpanBook book;
  const TimePoint begin = now();
  const auto trace = Tracer(book, 0.0).begin(kSampled, "rojo=1, congo=2", begin);
  const Span root = trace->request_span("POST /x", begin + std::chrono::milliseconds(5));
  EXPECT_EQ(root.trace.hex(), kSampled.substr(3, 32));
  EXPECT_EQ(root.parent.hex(), kSampled.substr(36, 16));
  EXPECT_TRUE(root.parent_is_remote);
  EXPECT_EQ(root.id, trace->span_id());
  EXPECT_EQ(root.kind, SpanKind::server);
  EXPECT_EQ(root.trace_state, "rojo=1, congo=2") << "as it came";
  EXPECT_EQ(root.end - root.begin, 5'000'000);
  const int64_t wall = std::chrono::system_clock::now().time_since_epoch().count();
  EXPECT_NEAR(static_cast<double>(root.begin), static_cast<double>(wall), 60e9);

  const Span child = trace->child("queue", begin, begin - std::chrono::seconds(1));
  EXPECT_EQ(child.trace, root.trace);
  EXPECT_EQ(child.parent, root.id);
  EXPECT_NE(child.id, root.id);
  EXPECT_FALSE(child.parent_is_remote);
  EXPECT_EQ(child.begin, root.begin) << "one clock for all";
  EXPECT_EQ(child.end, child.begin) << "none ends before it begins";

  const Span copy = trace->linked("copy", begin, begin);
  EXPECT_NE(copy.trace, root.trace);
  EXPECT_TRUE(copy.parent.is_zero());
  EXPECT_TRUE(copy.trace_state.empty());
  ASSERT_TRUE(copy.link.has_value());
  EXPECT_EQ(copy.link->trace, root.trace);
  EXPECT_EQ(copy.link->span, root.id);
}

TEST(RequestTrace, ATraceOfItsOwnHasNoParent) {
  testing::SpanBook book;
  const auto trace = Tracer(book, 1.0).begin("", "", now());
  const Span root = trace->request_span("s", now());
  EXPECT_TRUE(root.parent.is_zero());
  EXPECT_FALSE(root.parent_is_remote);
  EXPECT_EQ(root.flags, kSampledFlag | kRandomFlag);
  trace->send(root);
  ASSERT_EQ(book.spans().size(), 1U);
}

}  // namespace
}  // namespace inferneo
