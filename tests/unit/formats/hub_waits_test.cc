// What cannot be seen without waiting for seconds.
#include "unit/formats/hub_fixture.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

TEST_F(HubPullTest, RetryAfterIsWaitedForWithinReason) {
  int first = 0;
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request) && ++first == 1) reply = {.status = 429, .headers = {{"Retry-After", "1"}}, .body = ""};
  });
  const auto begin = std::chrono::steady_clock::now();
  expect_whole();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(990));
}

TEST_F(HubPullTest, ASilentServerIsATimeout) {
  tuning_.timeouts.low_speed_seconds = 1;
  tuning_.attempts = 1;
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (!is_weights(request)) return;
    reply.send = 10;
    reply.then = Reply::Then::stall;
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_EQ(fs::file_size(incomplete()), 10U);
}

}  // namespace
}  // namespace inferneo
