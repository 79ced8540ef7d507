// A client of the text side, for tests.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>

#include "serving/inference_service.h"

namespace inferneo {

// What a client sees of one request.
class ClientSink final : public OutputSink {
 public:
  void on_prompt(PromptInfo info) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(prompt_seen);
    EXPECT_TRUE(text.empty());
    prompt_seen = true;
    prompt = std::move(info);
  }
  void on_delta(OutputDelta delta) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(finish.contains(delta.sample)) << "a delta after the sample's end";
    EXPECT_EQ(outcomes, 0);
    ++deltas;
    text[delta.sample] += delta.text;
    if (delta.finish) {
      finish[delta.sample] = *delta.finish;
      stop_reason[delta.sample] = delta.stop_reason;
    }
    changed_.notify_all();
  }
  void on_done(GenerateOutcome result) override {
    std::lock_guard lock(mutex_);
    outcome = std::move(result);
    ++outcomes;
    changed_.notify_all();
  }
  void wait() {
    wait_until([this] { return outcomes > 0; });
  }
  void wait_for_text() {
    wait_until([this] { return !text.empty(); });
  }

  bool prompt_seen = false;
  PromptInfo prompt;
  std::map<int32_t, FinishReason> finish;
  std::map<int32_t, std::string> text, stop_reason;
  GenerateOutcome outcome;
  int outcomes = 0, deltas = 0;

 private:
  template <typename Condition>
  void wait_until(Condition condition) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), condition));
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace inferneo
