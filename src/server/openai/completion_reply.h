// Turns the generations of one completions request, one per prompt, into its reply: a JSON object or a stream of
// chunks.
//
// The sinks of the prompts may be called by several text threads at once; the reply has one lock. Choice i of prompt p
// has index p * n + i.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/exchange.h"
#include "server/openai/reply_format.h"
#include "server/openai/request_draft.h"
#include "serving/inference_service.h"

namespace inferneo {

class CompletionReply {
 public:
  CompletionReply(const InferenceService& service, std::shared_ptr<Exchange> exchange, RequestDraft draft);

  void on_route(const std::string& route) { exchange_->set_route(route); }  // of several prompts: the last one's
  void on_prompt(size_t prompt, PromptInfo info);
  void on_delta(size_t prompt, OutputDelta delta);
  void on_done(size_t prompt, GenerateOutcome outcome);

 private:
  struct Choice {
    bool begun = false;
    std::string text;
    std::vector<CompletionToken> tokens;
    int64_t text_offset = 0;
    int32_t num_tokens = 0;
    std::optional<FinishReason> finish;
    std::string stop_reason;
  };

  std::string chunk(size_t index, const Choice& choice, int64_t& text_offset) const;
  void write_choice(JsonWriter& json, size_t index, const Choice& choice, int64_t& text_offset) const;
  std::string whole_reply();

  const InferenceService& service_;
  std::shared_ptr<Exchange> exchange_;
  RequestDraft draft_;
  std::string id_;
  int64_t created_;

  std::mutex mutex_;
  std::string prefix_;
  std::vector<PromptInfo> prompts_;
  std::vector<Choice> choices_;  // [prompts * n]
  Usage usage_;
  size_t num_done_ = 0;
  bool failed_ = false;
};

}  // namespace inferneo
