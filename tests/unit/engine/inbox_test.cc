// How a model's queue refuses: whom, why, and when to come again.
#include "engine/inbox.h"

#include <gmock/gmock.h>

#include <deque>

namespace inferneo {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class InboxTest : public ::testing::Test {
 protected:
  Status submit(Inbox& inbox, TenantId tenant, std::optional<Duration> timeout = {}) {
    Request request;
    request.id = next_id_++;
    request.prompt = std::vector<Token>(10, 1);
    request.tenant.id = tenant;
    if (timeout) request.deadline = now_ + *timeout;
    Status status = inbox.submit(request, now_);
    if (status.ok()) waiting_.push_back(request);
    return status;
  }
  void serve(Inbox& inbox) {
    inbox.started(waiting_.front(), now_);
    inbox.done(waiting_.front());
    waiting_.pop_front();
  }

  TimePoint now_{std::chrono::seconds(50)};
  std::deque<Request> waiting_;
  RequestId next_id_ = 1;
};

TEST_F(InboxTest, AFullQueueSaysWhenItWillHaveDrained) {
  Inbox inbox({5, 0, false}, "m");
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(submit(inbox, 0).ok());
  EXPECT_EQ(submit(inbox, 0).error().retry_after, 0) << "nothing has been measured";
  for (int i = 0; i < 100; ++i) {
    now_ += milliseconds(800);
    serve(inbox);
    ASSERT_TRUE(submit(inbox, 0).ok());
  }
  const Status refused = submit(inbox, 0);
  EXPECT_EQ(refused.error().code, ErrorCode::queue_full);
  EXPECT_EQ(refused.error().retry_after, 4) << "five wait, one leaves every 0.8 s";
  EXPECT_THAT(refused.error().message, HasSubstr("model m has 5 requests waiting, which is its limit"));
  EXPECT_EQ(inbox.snapshot().refused[static_cast<size_t>(QueueRefusal::requests)], 2U);
}

TEST_F(InboxTest, IdleRequestsTakeNobodysPlace) {
  Inbox inbox({2, 0, true}, "m");
  for (RequestId id = 100; id < 120; ++id) {
    Request idle;
    idle.id = id;
    idle.prompt = {1};
    idle.idle = true;
    ASSERT_TRUE(inbox.submit(idle, now_).ok());
  }
  EXPECT_EQ(inbox.snapshot().num_live, 0U);
  EXPECT_TRUE(submit(inbox, 1).ok());
  serve(inbox);
  EXPECT_TRUE(submit(inbox, 1).ok());
}

TEST_F(InboxTest, OneTenantCannotFillAQueueThatOthersShare) {
  Inbox inbox({10, 0, true}, "m");
  while (submit(inbox, 1).ok()) {
  }
  EXPECT_EQ(waiting_.size(), 8U);
  EXPECT_THAT(submit(inbox, 1).error().message, HasSubstr("kept for other keys"));
  EXPECT_TRUE(submit(inbox, 2).ok());
}

TEST_F(InboxTest, WhatCannotBeStartedInTimeIsRefusedAtOnce) {
  Inbox inbox({1000, 0, true}, "m");
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(submit(inbox, 1).ok());
  for (int i = 0; i < 100; ++i) {
    now_ += milliseconds(500);
    serve(inbox);
    ASSERT_TRUE(submit(inbox, 1).ok());
  }
  const Status refused = submit(inbox, 1, std::chrono::seconds(5));  // twenty are likely, ten the least
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("before its deadline"));
  EXPECT_EQ(refused.error().retry_after, 5);
  EXPECT_TRUE(submit(inbox, 1, std::chrono::seconds(15)).ok());
  EXPECT_TRUE(submit(inbox, 2, std::chrono::seconds(5)).ok());
  EXPECT_EQ(inbox.snapshot().refused[static_cast<size_t>(QueueRefusal::deadline)], 1U);
}

}  // namespace
}  // namespace inferneo
