#include "app/generation_future.h"

#include <fmt/format.h>

#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "models/sampling/validate_sampling.h"
#include "serving/model_metrics.h"

namespace inferneo {

// The handle is held until on_done, so that no cancel() runs once the engine may be gone. Recursive, since a cancel may
// end a request on the caller's own thread.
struct GenerationTicket::Impl {
  std::recursive_mutex mutex;
  std::shared_ptr<GenerationHandle> handle;  // null before it is known, and after the end
  bool done = false;
};

void GenerationTicket::cancel() const {
  if (impl_ == nullptr) return;
  const std::lock_guard lock(impl_->mutex);
  const std::shared_ptr<GenerationHandle> handle = impl_->handle;
  if (handle != nullptr) handle->cancel();
}

namespace {

TokenLogprob plain(TokenLogprobText entry) {
  TokenLogprob logprob{.token = entry.token, .logprob = entry.logprob, .text = std::move(entry.text), .top = {}};
  for (const TokenLogprobText& other : entry.top) logprob.top.emplace_back(other.token, other.logprob);
  return logprob;
}

// Gathers a generation and tells its owner at the end.
class ResultSink final : public OutputSink {
 public:
  ResultSink(size_t num_samples, GenerationCallbacks callbacks, std::shared_ptr<GenerationTicket::Impl> ticket)
      : callbacks_(std::move(callbacks)), ticket_(std::move(ticket)) {
    result_.samples.resize(num_samples);
  }

  void on_prompt(PromptInfo info) override {
    result_.model = std::move(info.model);
    for (TokenLogprobText& entry : info.logprobs) result_.prompt_logprobs.push_back(plain(std::move(entry)));
  }
  void on_prompt_rows(std::vector<float> rows) override { result_.prompt_rows = std::move(rows); }

  void on_delta(OutputDelta delta) override {
    GenerationSample& sample = result_.samples[static_cast<size_t>(delta.sample)];
    sample.text += delta.text;
    sample.tokens.insert(sample.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    for (TokenLogprobText& entry : delta.logprobs) sample.logprobs.push_back(plain(std::move(entry)));
    if (delta.finish) sample.finish_reason = finish_reason_name(*delta.finish);
    if (callbacks_.on_text && !delta.text.empty()) callbacks_.on_text(delta.sample, delta.text);
  }

  void on_done(GenerateOutcome outcome) override {
    {
      const std::lock_guard lock(ticket_->mutex);
      ticket_->done = true;
      ticket_->handle.reset();
    }
    const GenerationCallbacks callbacks = std::move(callbacks_);
    if (outcome.error) {
      callbacks.on_done(std::move(*outcome.error));
      return;
    }
    result_.prompt_tokens = outcome.usage.prompt_tokens;
    result_.cached_tokens = outcome.usage.cached_tokens;
    result_.completion_tokens = outcome.usage.completion_tokens;
    result_.draft_tokens = outcome.usage.draft_tokens;
    result_.accepted_tokens = outcome.usage.accepted_tokens;
    result_.from_cache = outcome.usage.from_cache;
    if (outcome.stats.first_token != TimePoint{}) {
      result_.time_to_first_token = to_seconds(outcome.stats.first_token - outcome.stats.submitted);
    }
    result_.total_time = to_seconds(outcome.stats.finished - outcome.stats.submitted);
    callbacks.on_done(std::move(result_));
  }

 private:
  GenerationCallbacks callbacks_;
  const std::shared_ptr<GenerationTicket::Impl> ticket_;
  GenerationResult result_;
};

}  // namespace

GenerationTicket failed_submission(Error error, const GenerationCallbacks& callbacks) {
  callbacks.on_done(std::move(error));
  return {};
}

GenerationTicket submit_generation(InferenceService& service, GenerateRequest request, GenerationCallbacks callbacks) {
  // Token ids are held to the model's vocabulary by its engine.
  if (const Status valid = validate_sampling(request.sampling, std::numeric_limits<int>::max()); !valid.ok()) {
    return failed_submission(valid.error(), callbacks);
  }
  const int n = request.sampling.n;
  request.whole = !callbacks.on_text;
  auto ticket = std::make_shared<GenerationTicket::Impl>();
  auto sink = std::make_shared<ResultSink>(static_cast<size_t>(n), std::move(callbacks), ticket);
  request.explicit_sampling = {true, true, true, true, true};
  const std::shared_ptr<GenerationHandle> handle = service.generate(std::move(request), std::move(sink));
  const std::lock_guard lock(ticket->mutex);
  if (!ticket->done) ticket->handle = handle;
  return GenerationTicket(ticket);
}

std::future<Result<GenerationResult>> failed_generation(Error error) {
  std::promise<Result<GenerationResult>> promise;
  promise.set_value(std::move(error));
  return promise.get_future();
}

std::future<Result<GenerationResult>> generate_future(InferenceService& service, GenerateRequest request,
                                                      InferneoEngine::TextCallback on_text) {
  auto promise = std::make_shared<std::promise<Result<GenerationResult>>>();
  auto result = promise->get_future();
  submit_generation(service, std::move(request),
                    {.on_text = std::move(on_text),
                     .on_done = [promise](Result<GenerationResult> done) { promise->set_value(std::move(done)); }});
  return result;
}

EmbedRequest embed_request(std::vector<std::string> texts, const EmbeddingOptions& options, std::string model) {
  EmbedRequest request;
  request.model = std::move(model);
  for (std::string& text : texts) request.inputs.emplace_back(std::move(text));
  request.options = options;
  return request;
}

namespace {

Status check_texts(const EmbedRequest& request) {
  if (request.inputs.empty()) return make_error(ErrorCode::invalid_argument, "texts: expected at least one", "texts");
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const auto* const text = std::get_if<std::string>(&request.inputs[i]);
    if (text == nullptr || !text->empty()) continue;
    return make_error(ErrorCode::invalid_argument, fmt::format("texts[{}]: must not be empty", i), "texts");
  }
  return ok_status();
}

}  // namespace

GenerationTicket submit_embedding(InferenceService& service, EmbedRequest request, EmbeddingCallback on_done) {
  if (const Status status = check_texts(request); !status.ok()) {
    on_done(status.error());
    return {};
  }
  auto ticket = std::make_shared<GenerationTicket::Impl>();
  auto done = [ticket, on_done = std::move(on_done)](Result<EmbedAnswer> answer) {
    {
      const std::lock_guard lock(ticket->mutex);
      ticket->done = true;
      ticket->handle.reset();
    }
    if (!answer.ok()) return on_done(std::move(answer).error());
    on_done(EmbeddingResult{.model = std::move(answer->model),
                            .vectors = std::move(answer->vectors),
                            .dimensions = answer->dimensions,
                            .prompt_tokens = answer->prompt_tokens});
  };
  const std::shared_ptr<GenerationHandle> handle = service.embed(std::move(request), std::move(done));
  const std::lock_guard lock(ticket->mutex);
  if (!ticket->done) ticket->handle = handle;
  return GenerationTicket(ticket);
}

std::future<Result<EmbeddingResult>> embedding_future(const std::function<void(EmbeddingCallback on_done)>& submit) {
  auto promise = std::make_shared<std::promise<Result<EmbeddingResult>>>();
  auto result = promise->get_future();
  submit([promise](Result<EmbeddingResult> done) { promise->set_value(std::move(done)); });
  return result;
}

GenerateRequest plain_request(std::string prompt, SamplingParams sampling, std::string model) {
  GenerateRequest request;
  request.model = std::move(model);
  request.prompt = std::move(prompt);
  request.sampling = std::move(sampling);
  return request;
}

}  // namespace inferneo
