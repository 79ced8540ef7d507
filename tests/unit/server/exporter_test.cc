// The exporter against a collector that takes, refuses, hangs, is not there, and comes back.
#include "server/otlp/exporter.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "support/scripted_hub.h"

namespace inferneo {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ScriptedHub;

template <typename Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 10'000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(1));
  return condition();
}

std::vector<Span> some_spans(size_t count, const std::string& name = "s") {
  std::vector<Span> spans(count);
  for (Span& span : spans) {
    span.trace = new_trace_id();
    span.id = new_span_id();
    span.name = name;
  }
  return spans;
}

ExporterTuning quick() {
  ExporterTuning tuning;
  tuning.batch_delay = milliseconds(1);
  tuning.timeout = std::chrono::seconds(10);
  tuning.first_delay = milliseconds(1);
  tuning.max_delay = milliseconds(4);
  tuning.flush_timeout = std::chrono::seconds(10);
  return tuning;
}

size_t spans_in(const std::string& body) {
  return json::parse(body).at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").size();
}

class ExporterTest : public ::testing::Test {
 protected:
  using Request = ScriptedHub::Request;
  using Reply = ScriptedHub::Reply;

  ExporterTest() {
    set_log_level(LogLevel::off);
    answer(200);
  }
  void answer(int status, std::map<std::string, std::string> headers = {}, const std::string& body = "{}") {
    hub_.set_script(
        [=](const Request&, Reply& reply) { reply = {.status = status, .headers = headers, .body = body}; });
  }
  void hang() {
    hub_.set_script(
        [](const Request&, Reply& reply) { reply = {.body = "{}", .send = 0, .then = Reply::Then::stall}; });
  }
  Collector collector() const { return {hub_.endpoint() + "/v1/traces", {"x-scope: tests"}}; }
  std::unique_ptr<OtlpExporter> exporter(const ExporterTuning& tuning) const {
    return std::make_unique<OtlpExporter>(collector(), TraceResource{"svc", "one"}, tuning);
  }

  ScriptedHub hub_;
};

TEST_F(ExporterTest, SendsBatchesAsJsonWithItsHeaders) {
  const auto sender = exporter(quick());
  sender->add(some_spans(3));
  ASSERT_TRUE(eventually([&] { return sender->counts().exported == 3; }));
  const auto requests = hub_.requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].target, "/v1/traces");
  EXPECT_EQ(requests[0].header("content-type"), "application/json");
  EXPECT_EQ(requests[0].header("x-scope"), "tests");
  EXPECT_EQ(spans_in(requests[0].body), 3U);
}

TEST_F(ExporterTest, AFullBatchDoesNotWaitForItsTime) {
  ExporterTuning tuning = quick();
  tuning.batch_delay = std::chrono::hours(1);
  tuning.max_batch = 4;
  const auto sender = exporter(tuning);
  sender->add(some_spans(10));
  ASSERT_TRUE(eventually([&] { return sender->counts().exported == 8; }));
  EXPECT_EQ(hub_.requests().size(), 2U);
  sender->stop();  // and the end waits for no time either
  EXPECT_EQ(sender->counts().exported, 10U);
  EXPECT_EQ(spans_in(hub_.requests().back().body), 2U);
}

TEST_F(ExporterTest, AnOverloadedCollectorIsAskedAgain) {
  for (const int status : {429, 502, 503, 504}) {
    ScriptedHub hub;
    hub.set_script([status](const Request& request, Reply& reply) {
      reply = {.status = request.nth < 3 ? status : 200, .body = "{}"};
    });
    OtlpExporter sender({hub.endpoint() + "/v1/traces", {}}, {"svc", "one"}, quick());
    sender.add(some_spans(2));
    ASSERT_TRUE(eventually([&] { return sender.counts().exported == 2; })) << status;
    EXPECT_EQ(hub.requests().size(), 3U);
    EXPECT_EQ(hub.requests()[0].body, hub.requests()[2].body) << "the same spans";
    EXPECT_EQ(sender.counts().failed, 0U);
  }
}

TEST_F(ExporterTest, OtherAnswersAreNotAskedAgain) {
  for (const int status : {301, 307, 400, 401, 404, 413, 500, 501}) {
    answer(status, {{"Location", hub_.endpoint() + "/elsewhere"}});
    const size_t before = hub_.requests().size();
    const auto sender = exporter(quick());
    sender->add(some_spans(2));
    ASSERT_TRUE(eventually([&] { return sender->counts().failed == 2; })) << status;
    sender->stop();
    EXPECT_EQ(hub_.requests().size(), before + 1) << status;
  }
  EXPECT_EQ(hub_.count("POST", "elsewhere"), 0U) << "nobody is sent elsewhere with the headers";
}

TEST_F(ExporterTest, RetryAfterIsWaitedFor) {
  std::mutex mutex;
  std::vector<TimePoint> times;
  hub_.set_script([&](const Request& request, Reply& reply) {
    const std::lock_guard lock(mutex);
    times.push_back(std::chrono::steady_clock::now());
    reply = {.status = request.nth == 1 ? 503 : 200, .headers = {{"Retry-After", "1"}}, .body = "{}"};
  });
  const auto sender = exporter(quick());
  sender->add(some_spans(1));
  ASSERT_TRUE(eventually([&] { return sender->counts().exported == 1; }));
  const std::lock_guard lock(mutex);
  ASSERT_EQ(times.size(), 2U);
  EXPECT_GE(times[1] - times[0], milliseconds(990));
}

TEST_F(ExporterTest, ABatchIsGivenUpAfterItsAttempts) {
  answer(503);
  ExporterTuning tuning = quick();
  tuning.attempts = 3;
  const auto sender = exporter(tuning);
  sender->add(some_spans(5));
  ASSERT_TRUE(eventually([&] { return sender->counts().failed == 5; }));
  EXPECT_EQ(hub_.requests().size(), 3U);
  answer(200);
  sender->add(some_spans(4));
  EXPECT_TRUE(eventually([&] { return sender->counts().exported == 4; })) << "the next batch is none the worse";
}

TEST_F(ExporterTest, OneThatHangsIsGivenUpAndTriedAgain) {
  ExporterTuning tuning = quick();
  tuning.timeout = milliseconds(20);
  tuning.attempts = 2;
  hang();
  const auto sender = exporter(tuning);
  sender->add(some_spans(1));
  ASSERT_TRUE(eventually([&] { return sender->counts().failed == 1; }));
  EXPECT_LE(hub_.requests().size(), 2U) << "it may have had no time to read one";
  answer(200);
}

TEST_F(ExporterTest, OneThatIsNotThereCostsRequestsNothing) {
  ExporterTuning tuning = quick();
  tuning.attempts = 2;
  OtlpExporter sender({"http://127.0.0.1:1/v1/traces", {}}, {"svc", "one"}, tuning);
  for (int i = 0; i < 100; ++i) sender.add(some_spans(10));
  ASSERT_TRUE(eventually([&] { return sender.counts().failed + sender.counts().dropped == 1000; }));
  EXPECT_EQ(sender.counts().exported, 0U);
}

TEST_F(ExporterTest, AFullQueueDropsAndCounts) {
  hang();
  ExporterTuning tuning = quick();
  tuning.max_batch = 4;
  tuning.max_queue = 10;
  tuning.flush_timeout = milliseconds(50);
  const auto sender = exporter(tuning);
  sender->add(some_spans(4));
  ASSERT_TRUE(eventually([&] { return hub_.requests().size() == 1; }));  // under way: the queue is empty
  sender->add(some_spans(7));
  EXPECT_EQ(sender->counts().dropped, 0U);
  sender->add(some_spans(18));
  EXPECT_EQ(sender->counts().dropped, 15U);
  sender->add(some_spans(1));
  EXPECT_EQ(sender->counts().dropped, 16U);
  const TimePoint begin = std::chrono::steady_clock::now();
  sender->stop();  // it still hangs
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(8)) << "the end does not wait for it";
  EXPECT_EQ(sender->counts().failed, 14U);
  sender->add(some_spans(2));
  EXPECT_EQ(sender->counts().dropped, 18U) << "after the end";
}

TEST_F(ExporterTest, TheEndInterruptsAPauseAndTriesOnceMore) {
  hub_.set_script([](const Request& request, Reply& reply) {
    reply = {.status = request.nth == 1 ? 503 : 200, .headers = {{"Retry-After", "3600"}}, .body = "{}"};
  });
  const auto sender = exporter(quick());
  sender->add(some_spans(3));
  ASSERT_TRUE(eventually([&] { return hub_.requests().size() == 1; }));
  sender->stop();
  EXPECT_EQ(sender->counts().exported, 3U);
}

TEST_F(ExporterTest, WhatTheCollectorRefusesHasFailed) {
  answer(200, {}, R"({"partialSuccess":{"rejectedSpans":"2"}})");
  const auto sender = exporter(quick());
  sender->add(some_spans(5));
  ASSERT_TRUE(eventually([&] { return sender->counts().exported == 3; }));
  EXPECT_EQ(sender->counts().failed, 2U);
}

TEST_F(ExporterTest, NoSpanIsLostUncounted) {
  hub_.set_script([](const Request& request, Reply& reply) {
    reply = {.status = request.nth % 3 == 0 ? 400 : request.nth % 3 == 1 ? 503 : 200, .body = "{}"};
  });
  ExporterTuning tuning = quick();
  tuning.max_batch = 16;
  tuning.max_queue = 64;
  const auto sender = exporter(tuning);
  std::vector<std::thread> threads;
  constexpr size_t kSpans = 4 * 300 * 3;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) sender->add(some_spans(3));
    });
  }
  for (std::thread& thread : threads) thread.join();
  sender->stop();
  const SpanCounts counts = sender->counts();
  EXPECT_EQ(counts.exported + counts.dropped + counts.failed, kSpans);
  EXPECT_GT(counts.exported, 0U);
}

TEST_F(ExporterTest, TheLogHasOneLineWhenItFailsAndOneWhenItIsWellAgain) {
  set_log_level(LogLevel::info);
  ::testing::internal::CaptureStderr();
  answer(503);
  ExporterTuning tuning = quick();
  tuning.attempts = 2;
  const auto sender = exporter(tuning);
  for (uint64_t i = 1; i <= 5; ++i) {
    sender->add(some_spans(1));
    ASSERT_TRUE(eventually([&] { return sender->counts().failed == i; }));
  }
  answer(200);
  for (uint64_t i = 1; i <= 3; ++i) {
    sender->add(some_spans(1));
    ASSERT_TRUE(eventually([&] { return sender->counts().exported == i; }));
  }
  sender->stop();
  const std::string log = ::testing::internal::GetCapturedStderr();
  set_log_level(LogLevel::off);
  const auto lines = std::count(log.begin(), log.end(), '\n');
  EXPECT_EQ(lines, 2) << log;
  EXPECT_NE(log.find("answers 503"), std::string::npos) << log;
  EXPECT_NE(log.find("5 were given up"), std::string::npos) << log;
}

}  // namespace
}  // namespace inferneo
