#include "inferneo/engine.h"

#include <algorithm>
#include <utility>

#include "app/application.h"
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
    result_.time_to_first_token = to_seconds(outcome.stats.first_token - outcome.stats.submitted);
    result_.total_time = to_seconds(outcome.stats.finished - outcome.stats.submitted);
    promise_.set_value(std::move(result_));
  }

 private:
  InferneoEngine::TextCallback on_text_;
  GenerationResult result_;
  std::promise<Result<GenerationResult>> promise_;
};

std::future<Result<GenerationResult>> failed(Error error) {
  std::promise<Result<GenerationResult>> promise;
  promise.set_value(std::move(error));
  return promise.get_future();
}

}  // namespace

struct InferneoEngine::Impl {
  EngineConfig config;
  std::unique_ptr<Application> application;
};

InferneoEngine::InferneoEngine(EngineConfig config) : impl_(std::make_unique<Impl>()) {
  impl_->config = std::move(config);
}

InferneoEngine::~InferneoEngine() = default;

Status InferneoEngine::start() {
  if (impl_->application != nullptr) {
    return make_error(ErrorCode::already_exists, "the engine has been started already");
  }
  ASSIGN_OR_RETURN(auto application, Application::create(impl_->config));
  RETURN_IF_ERROR(application->load_models());
  impl_->application = std::move(application);
  return ok_status();
}

void InferneoEngine::stop() { impl_->application.reset(); }

std::future<Result<GenerationResult>> InferneoEngine::generate(std::string prompt, SamplingParams sampling,
                                                               std::string model) {
  return generate_stream(std::move(prompt), std::move(sampling), {}, std::move(model));
}

std::future<Result<GenerationResult>> InferneoEngine::generate_stream(std::string prompt, SamplingParams sampling,
                                                                      TextCallback on_text, std::string model) {
  if (impl_->application == nullptr) {
    return failed(make_error(ErrorCode::unavailable, "the engine is not running; call start() first"));
  }
  if (sampling.n < 1 || sampling.n > 16) {
    return failed(make_error(ErrorCode::invalid_argument, "n must be from 1 to 16", "n"));
  }
  auto sink = std::make_shared<ResultSink>(static_cast<size_t>(sampling.n), std::move(on_text));
  auto result = sink->result();
  GenerateRequest request;
  request.model = std::move(model);
  request.prompt = std::move(prompt);
  request.sampling = std::move(sampling);
  request.explicit_sampling = {true, true, true, true, true};
  impl_->application->service().generate(std::move(request), std::move(sink));
  return result;
}

}  // namespace inferneo
