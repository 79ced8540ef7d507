// Keeps what a request says, and lets a test wait for its end.
#pragma once

#include <future>
#include <optional>
#include <vector>

#include "engine/engine_core.h"

namespace inferneo {

class Collect final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { promise_.set_value(outcome); }
  RequestOutcome wait() { return done_.get(); }
  std::vector<Token> tokens;  // after wait()

 private:
  std::promise<RequestOutcome> promise_;
  std::future<RequestOutcome> done_ = promise_.get_future();
};

}  // namespace inferneo
