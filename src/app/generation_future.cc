#include "app/generation_future.h"

#include <memory>
#include <utility>

#include "serving/model_metrics.h"

namespace inferneo {
namespace {

// Gathers a generation and keeps its promise at the end.
class ResultSink final : public OutputSink {
 public:
  ResultSink(size_t num_samples, InferneoEngine::TextCallback on_text) : on_text_(std::move(on_text)) {
    result_.samples.resize(num_samples);
  }

  std::future<Result<GenerationResult>> result() { return promise_.get_future(); }

  void on_prompt(PromptInfo info) override { result_.model = std::move(info.model); }

  void on_delta(OutputDelta delta) override {
    GenerationSample& sample = result_.samples[static_cast<size_t>(delta.sample)];
    sample.text += delta.text;
    sample.tokens.insert(sample.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    if (delta.finish) sample.finish_reason = finish_reason_name(*delta.finish);
    if (on_text_ && !delta.text.empty()) on_text_(delta.sample, delta.text);
  }

  void on_done(GenerateOutcome outcome) override {
    if (outcome.error) {
      promise_.set_value(std::move(*outcome.error));
      return;
    }
    result_.prompt_tokens = outcome.usage.prompt_tokens;
    result_.cached_tokens = outcome.usage.cached_tokens;
    result_.completion_tokens = outcome.usage.completion_tokens;
    result_.draft_tokens = outcome.usage.draft_tokens;
    result_.accepted_tokens = outcome.usage.accepted_tokens;
    result_.time_to_first_token = to_seconds(outcome.stats.first_token - outcome.stats.submitted);
    result_.total_time = to_seconds(outcome.stats.finished - outcome.stats.submitted);
    promise_.set_value(std::move(result_));
  }

 private:
  InferneoEngine::TextCallback on_text_;
  GenerationResult result_;
  std::promise<Result<GenerationResult>> promise_;
};

}  // namespace

std::future<Result<GenerationResult>> failed_generation(Error error) {
  std::promise<Result<GenerationResult>> promise;
  promise.set_value(std::move(error));
  return promise.get_future();
}

std::future<Result<GenerationResult>> generate_future(InferenceService& service, GenerateRequest request,
                                                      InferneoEngine::TextCallback on_text) {
  const int n = request.sampling.n;
  if (n < 1 || n > 16) {
    return failed_generation(make_error(ErrorCode::invalid_argument, "n must be from 1 to 16", "n"));
  }
  auto sink = std::make_shared<ResultSink>(static_cast<size_t>(n), std::move(on_text));
  auto result = sink->result();
  request.explicit_sampling = {true, true, true, true, true};
  service.generate(std::move(request), std::move(sink));
  return result;
}

std::future<Result<GenerationResult>> generate_future(InferenceService& service, std::string prompt,
                                                      SamplingParams sampling, std::string model,
                                                      InferneoEngine::TextCallback on_text) {
  GenerateRequest request;
  request.model = std::move(model);
  request.prompt = std::move(prompt);
  request.sampling = std::move(sampling);
  return generate_future(service, std::move(request), std::move(on_text));
}

}  // namespace inferneo
