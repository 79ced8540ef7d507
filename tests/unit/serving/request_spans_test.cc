// Which spans a generation has, by how far it came, and that none holds what the client wrote.
#include "serving/request_spans.h"

#include <gtest/gtest.h>

#include "support/span_book.h"
#include "tracing/tracer.h"

namespace inferneo {
namespace {

using testing::number_of;
using testing::text_of;

TimePoint at(int milliseconds) { return TimePoint(std::chrono::hours(1) + std::chrono::milliseconds(milliseconds)); }

class RequestSpans : public ::testing::Test {
 protected:
  RequestSpans() {
    request_.request_id = "req-1";
    request_.model = "story";
    request_.prompt = std::string("a secret prompt");
    request_.user = "a secret user";
    request_.sampling.max_tokens = 9;
    request_.sampling.temperature = 0.7F;
    request_.sampling.stop = {"a secret stop"};
    facts_.times = {.arrived = at(0), .asked = at(1), .leased = at(2), .ended = at(100)};
  }
  void reach_engine() {
    facts_.asked_model = facts_.model = "story";
    facts_.model_id = "story:1";
    facts_.finish_reasons = {"stop"};
    outcome_.stats.submitted = at(10);
    outcome_.stats.scheduled = at(20);
    outcome_.stats.first_token = at(50);
    outcome_.stats.finished = at(90);
    outcome_.usage = {.prompt_tokens = 7, .cached_tokens = 2, .completion_tokens = 4};
  }
  std::vector<Span> spans() const { return generation_spans(*trace_, facts_); }
  static std::vector<std::string> names(const std::vector<Span>& spans) {
    std::vector<std::string> result;
    for (const Span& span : spans) result.push_back(span.name);
    return result;
  }

  testing::SpanBook book_;
  std::shared_ptr<const RequestTrace> trace_ = Tracer(book_, 1.0).begin("", "", at(0));
  GenerateRequest request_;
  GenerateOutcome outcome_;
  GenerationFacts facts_{.request = request_, .outcome = outcome_, .times = {}};
};

TEST_F(RequestSpans, AWholeOneHasAllPhasesEndToEnd) {
  reach_engine();
  facts_.times.waited = true;
  const std::vector<Span> all = spans();
  EXPECT_EQ(names(all),
            (std::vector<std::string>{"text_completion story", "load_model", "prepare", "queue", "prefill", "decode"}));
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(all[i].parent, all[0].id);
    EXPECT_EQ(all[i].trace, all[0].trace);
    if (i > 1) {
      EXPECT_EQ(all[i].begin, all[i - 1].end);
    }
  }
  EXPECT_EQ(all[0].parent, trace_->span_id());
  EXPECT_EQ(text_of(all[0], "gen_ai.request.model"), "story");
  EXPECT_EQ(text_of(all[0], "inferneo.model.id"), "story:1");
  EXPECT_EQ(number_of(all[0], "gen_ai.usage.input_tokens"), 7);
  EXPECT_EQ(number_of(all[0], "gen_ai.usage.cache_read.input_tokens"), 2);
  EXPECT_EQ(std::get<double>(*testing::value_of(all[0], "gen_ai.request.temperature")), 0.7);
  EXPECT_NEAR(std::get<double>(*testing::value_of(all[0], "gen_ai.latency.time_to_first_token")), 0.04, 1e-12);
  EXPECT_FALSE(all[0].failed);
}

TEST_F(RequestSpans, WhatNeverReachedAModelHasNoPhases) {
  outcome_.error = make_error(ErrorCode::not_found, "a secret message");
  facts_.times = {.arrived = at(0), .ended = at(1)};
  const std::vector<Span> all = spans();
  EXPECT_EQ(names(all), std::vector<std::string>{"text_completion"});
  EXPECT_EQ(text_of(all[0], "error.type"), "not_found");
  EXPECT_EQ(testing::value_of(all[0], "gen_ai.request.model"), nullptr);
  EXPECT_EQ(testing::value_of(all[0], "gen_ai.latency.e2e"), nullptr);
  EXPECT_TRUE(all[0].failed);
}

TEST_F(RequestSpans, ALoadThatFailedIsSeen) {
  outcome_.error = make_error(ErrorCode::unavailable, "no");
  facts_.asked_model = "story";
  facts_.times.waited = true;
  EXPECT_EQ(names(spans()), (std::vector<std::string>{"text_completion story", "load_model"}));
}

TEST_F(RequestSpans, TheLastPhaseLastsUntilTheEnd) {
  reach_engine();
  outcome_.error = make_error(ErrorCode::cancelled, "gone");
  outcome_.stats.scheduled = outcome_.stats.first_token = TimePoint{};
  const std::vector<Span> all = spans();
  EXPECT_EQ(names(all), (std::vector<std::string>{"text_completion story", "prepare", "queue"}));
  EXPECT_EQ(all[2].end, all[0].end);
  EXPECT_FALSE(all[0].failed) << "who leaves is no failure";
}

TEST_F(RequestSpans, NothingOfTheClientsWordsIsInThem) {
  reach_engine();
  outcome_.error = make_error(ErrorCode::internal, "a secret message");
  for (const Span& span : spans()) {
    EXPECT_EQ(span.name.find("secret"), std::string::npos);
    for (const SpanAttribute& attribute : span.attributes) {
      const auto* text = std::get_if<std::string>(&attribute.value);
      if (text != nullptr) {
        EXPECT_EQ(text->find("secret"), std::string::npos) << attribute.key;
      }
    }
  }
}

TEST_F(RequestSpans, ACopysAreATraceOfTheirOwn) {
  reach_engine();
  request_.is_copy = true;
  const std::vector<Span> all = spans();
  EXPECT_NE(all[0].trace, trace_->trace_id());
  EXPECT_TRUE(all[0].parent.is_zero());
  ASSERT_TRUE(all[0].link.has_value());
  EXPECT_EQ(all[0].link->span, trace_->span_id());
  for (const Span& span : all) EXPECT_EQ(span.trace, all[0].trace);
}

TEST_F(RequestSpans, ARouteNamesWhatOperatorsNamed) {
  TrafficRoute route{.model = "secret", .rule = "code", .fallback = FallbackReason::failed};
  const Span unknown = route_span(*trace_, route, false, at(0), at(1));
  EXPECT_EQ(text_of(unknown, "inferneo.route.rule"), "code");
  EXPECT_EQ(text_of(unknown, "inferneo.route.fallback"), "failed");
  EXPECT_EQ(testing::value_of(unknown, "inferneo.route.model"), nullptr);
  EXPECT_EQ(text_of(route_span(*trace_, route, true, at(0), at(1)), "inferneo.route.model"), "secret");
  EXPECT_EQ(unknown.parent, trace_->span_id());
}

}  // namespace
}  // namespace inferneo
