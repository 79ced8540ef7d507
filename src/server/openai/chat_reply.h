// Turns one chat generation into its reply: a whole JSON object, or a stream of chunks.
//
// An OutputSink: called by one text thread at a time. Formats there, queues on the exchange, never blocks.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/exchange.h"
#include "server/json_writer.h"
#include "server/openai/parser_family.h"
#include "server/openai/request_draft.h"
#include "serving/inference_service.h"

namespace inferneo {

class ChatReply final : public OutputSink {
 public:
  ChatReply(InferenceService& service, std::shared_ptr<Exchange> exchange, RequestDraft draft);

  void on_route(std::string route) override { exchange_->set_route(route); }
  void on_prompt(PromptInfo info) override;
  void on_delta(OutputDelta delta) override;
  void on_done(GenerateOutcome outcome) override;

 private:
  struct ToolCall {
    std::string id;
    std::string name;
    std::string arguments;
  };
  struct Sample {
    std::unique_ptr<OutputParser> parser;
    bool begun = false;  // the role has been streamed
    std::string content;
    std::string reasoning;
    std::vector<ToolCall> calls;
    std::vector<TokenLogprobText> logprobs;
    int32_t num_tokens = 0;
    std::optional<FinishReason> finish;
    std::string stop_reason;
  };

  Sample& sample_at(int32_t index);
  bool is_wanted(const OutputEvent& event) const;
  void apply(Sample& sample, const OutputEvent& event);
  std::string stream_events(int32_t index, Sample& sample, const std::vector<OutputEvent>& events,
                            const std::vector<TokenLogprobText>& logprobs);
  // One chunk around a delta object; logprobs may be null.
  std::string chunk(int32_t index, std::string_view delta, const std::vector<TokenLogprobText>* logprobs,
                    const Sample* finished);
  std::optional<Usage> usage_so_far(int32_t index) const;  // none unless every chunk is to have it
  std::string usage_chunk(const Usage& usage) const;
  std::string delta_of(Sample& sample, const OutputEvent& event);
  std::string whole_reply(const Usage& usage);
  void write_message(JsonWriter& json, const Sample& sample) const;

  InferenceService& service_;
  std::shared_ptr<Exchange> exchange_;
  RequestDraft draft_;
  std::string id_;
  std::string model_;
  std::string prefix_;
  ChatFormat format_;
  bool begins_inside_reasoning_ = false;
  PromptInfo prompt_;
  std::map<int32_t, Sample> samples_;
};

}  // namespace inferneo
