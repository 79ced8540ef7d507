// One request's way to a model that does not generate: lease, tokens, its queue, and the answer.
//
// Threads: prepare() and finish() run on text threads; the graph's core only posts; cancel() comes from anywhere.
// Ownership: shared by the core's callback, by queued tasks and by the caller (as handle). The lease ends on a text
// thread, never on the core's, which it keeps alive. Embeddings of models that generate are made of what their engine
// says about the prompt (SamplingParams::prompt_rows).
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "manager/manager_core.h"
#include "serving/generation.h"
#include "serving/inference_service.h"

namespace inferneo {

using EmbedCallback = InferenceService::EmbedCallback;
using InferCallback = InferenceService::InferCallback;

class GraphCall final : public GenerationHandle, public std::enable_shared_from_this<GraphCall> {
 public:
  GraphCall(GenerationContext& context, EmbedRequest request, EmbedCallback done);
  GraphCall(GenerationContext& context, InferRequest request, InferCallback done);

  void start();
  void cancel() override;

 private:
  class PromptReader;
  bool is_text() const { return embedded_ != nullptr; }
  void prepare(Result<ModelLease> lease);
  Status submit();
  Result<std::vector<std::vector<Token>>> tokens() const;
  Status charge(const std::vector<std::vector<Token>>& texts);
  Status submit_texts(std::vector<std::vector<Token>> texts);
  Status submit_prompts(std::vector<std::vector<Token>> texts);
  Status remember(Result<GraphCore::JobId> job);
  void end_later(Result<std::vector<float>> vectors);
  void end_later(Result<std::vector<NamedTensor>> outputs);
  void fail(const Error& error);
  void finish(const std::optional<Error>& error);
  bool is_cancelled();

  GenerationContext& context_;
  std::string model_;  // as it was asked for
  std::shared_ptr<AdmissionTicket> ticket_;
  EmbedRequest embed_;
  InferRequest infer_;
  EmbedCallback embedded_;  // one of the two
  InferCallback inferred_;
  const TimePoint arrived_;
  TimePoint submitted_{};
  ModelLease lease_;
  std::shared_ptr<ModelMetrics> metrics_;
  std::unique_ptr<AdmissionPlace> waiting_;
  int64_t prompt_tokens_ = 0;
  int64_t charged_ = 0;
  size_t dimensions_ = 0;

  std::mutex mutex_;  // guards what follows
  bool cancelled_ = false;
  std::optional<GraphCore::JobId> job_;
  std::vector<RequestId> prompts_;  // of a model that generates
  std::weak_ptr<LoadedModel> submitted_to_;
};

// What a request of another kind than the model's is told.
Error wrong_kind(const LoadedModel& model, const std::string& shown);

}  // namespace inferneo
