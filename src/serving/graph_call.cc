#include "serving/graph_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>
#include <utility>

namespace inferneo {
namespace {

// A prompt's rows as one: [rows, width] to [width].
Status pool_rows(std::span<const float> rows, size_t count, const EmbeddingOptions& options, std::span<float> vector) {
  const size_t width = vector.size();
  const size_t first = options.pooling == EmbeddingPooling::last ? count - 1 : 0;
  std::vector<double> sums(width, 0.0);
  for (size_t row = first; row < count; ++row) {
    for (size_t d = 0; d < width; ++d) sums[d] += static_cast<double>(rows[row * width + d]);
  }
  double squares = 0.0;
  for (const double sum : sums) squares += sum * sum;
  if (!std::isfinite(squares))
    return make_error(ErrorCode::numeric, "the model's hidden states hold what is no number");
  double scale = 1.0 / static_cast<double>(count - first);
  if (options.normalize.value_or(true)) scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (size_t d = 0; d < width; ++d) vector[d] = static_cast<float>(sums[d] * scale);
  return ok_status();
}

// Beyond those of generations, which count from 1.
RequestId next_prompt_id() {
  static std::atomic<RequestId> last{RequestId{1} << 62};
  return ++last;
}

}  // namespace

// The prompts of one request in the engine of a model that generates; the last one's end ends the request.
class GraphCall::PromptReader {
 public:
  PromptReader(std::shared_ptr<GraphCall> call, std::vector<size_t> lengths, size_t width)
      : call_(std::move(call)),
        options_(call_->embed_.options),
        lengths_(std::move(lengths)),
        vectors_(lengths_.size() * width),
        width_(width) {
    left_ = lengths_.size();
  }

  class Sink final : public TokenSink {
   public:
    Sink(std::shared_ptr<PromptReader> reader, size_t text) : reader_(std::move(reader)), text_(text) {}
    void on_prompt_rows(std::vector<float> rows) override { reader_->take(text_, rows); }
    void on_token(int32_t, Token, const TokenLogprobs*, bool) override {}
    void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
    void on_done(const RequestOutcome& outcome) override {
      std::optional<Error> error = outcome.error;
      if (!error && outcome.reason == FinishReason::cancelled) {
        error = make_error(ErrorCode::cancelled, "the request was cancelled");
      }
      reader_->end(error);
    }

   private:
    std::shared_ptr<PromptReader> reader_;
    size_t text_;
  };

  // Also of one that was not accepted. All on the engine's thread, but for those.
  void end(const std::optional<Error>& error) {
    {
      const std::lock_guard lock(mutex_);
      if (error && !error_) error_ = error;
      if (--left_ > 0) return;
    }
    // Nothing of the call may end here: its lease keeps the engine alive.
    if (error_) {
      call_->end_later(Result<std::vector<float>>(*error_));
    } else {
      call_->end_later(Result<std::vector<float>>(std::move(vectors_)));
    }
  }

 private:
  void take(size_t text, std::span<const float> rows) {
    Status pooled = make_error(ErrorCode::internal, "the engine gave another number of rows than there are tokens");
    if (rows.size() == lengths_[text] * width_) {
      pooled = pool_rows(rows, lengths_[text], options_, std::span(vectors_).subspan(text * width_, width_));
    }
    const std::lock_guard lock(mutex_);
    if (!pooled.ok() && !error_) error_ = pooled.error();
  }

  const std::shared_ptr<GraphCall> call_;
  const EmbeddingOptions options_;
  const std::vector<size_t> lengths_;
  std::vector<float> vectors_;
  const size_t width_;
  std::mutex mutex_;
  size_t left_ = 0;
  std::optional<Error> error_;
};

Error wrong_kind(const LoadedModel& model, const std::string& shown) {
  const char* what = "";
  std::string instead;
  switch (model.kind()) {
    case ModelKind::generator:
      what = "generates text and takes no tensors";
      instead = "/v1/chat/completions, /v1/completions or /v1/embeddings";
      break;
    case ModelKind::embedding:
      what = "makes embeddings and generates no text";
      instead = "/v1/embeddings";
      break;
    case ModelKind::tensors:
      what = "takes tensors and no text";
      instead = fmt::format("/v2/models/{}/infer", shown);
      break;
  }
  return make_error(ErrorCode::invalid_argument, fmt::format("the model '{}' {}; use {}", shown, what, instead),
                    "model");
}

GraphCall::GraphCall(GenerationContext& context, EmbedRequest request, EmbedCallback done)
    : context_(context),
      model_(request.model),
      ticket_(std::move(request.ticket)),
      embed_(std::move(request)),
      embedded_(std::move(done)),
      arrived_(context.clock.now()) {}

GraphCall::GraphCall(GenerationContext& context, InferRequest request, InferCallback done)
    : context_(context),
      model_(request.model),
      ticket_(std::move(request.ticket)),
      infer_(std::move(request)),
      inferred_(std::move(done)),
      arrived_(context.clock.now()) {}

void GraphCall::start() {
  const auto self = shared_from_this();
  const auto on_lease = [self](Result<ModelLease> lease) {
    auto held = std::make_shared<Result<ModelLease>>(std::move(lease));
    self->context_.pool.post_beginning([self, held] { self->prepare(std::move(*held)); });
  };
  if (context_.admission != nullptr) {
    GenerateRequest place;
    place.ticket = ticket_;
    Result<std::unique_ptr<AdmissionPlace>> joined = context_.admission->join(place);
    if (!joined.ok()) return on_lease(std::move(joined).error());
    waiting_ = *std::move(joined);
  }
  const bool accepted = context_.pool.try_post([self, on_lease] {
    // Rules may have sent it elsewhere.
    const ModelLease held = std::move(self->embed_.held);
    if (held != nullptr && held->id == self->model_) return on_lease(held);
    self->context_.manager.acquire(self->model_, on_lease);
  });
  if (!accepted) on_lease(make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"));
}

bool GraphCall::is_cancelled() {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

void GraphCall::cancel() {
  ModelLease model;
  std::optional<GraphCore::JobId> job;
  std::vector<RequestId> prompts;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    job = job_;
    prompts = prompts_;
    model = submitted_to_.lock();
  }
  if (model == nullptr) return;
  if (job) model->graph->cancel(*job);
  for (const RequestId id : prompts) model->core->cancel(id);
}

void GraphCall::prepare(Result<ModelLease> lease) {
  if (!lease.ok()) return fail(lease.error());
  if (is_cancelled()) return fail(make_error(ErrorCode::cancelled, "the request was cancelled"));
  lease_ = *lease;
  metrics_ = context_.metrics(lease_->id);
  // The local lease lasts: what was submitted may end the request on another thread meanwhile.
  if (const Status status = submit(); !status.ok()) fail(status.error());
}

Result<std::vector<std::vector<Token>>> GraphCall::tokens() const {
  const Tokenizer& tokenizer = *lease_->tokenizer;
  std::vector<std::vector<Token>> texts;
  for (const auto& input : embed_.inputs) {
    if (const auto* const text = std::get_if<std::string>(&input)) {
      ASSIGN_OR_RETURN(std::vector<Token> encoded, tokenizer.encode(*text, true));
      texts.push_back(std::move(encoded));
      continue;
    }
    const auto& given = std::get<std::vector<Token>>(input);
    const int32_t vocabulary = tokenizer.vocab_size();
    if (std::any_of(given.begin(), given.end(), [&](Token token) { return token < 0 || token >= vocabulary; })) {
      return make_error(ErrorCode::invalid_argument, "'input' holds a token outside the model's vocabulary", "input");
    }
    texts.push_back(given);
  }
  return texts;
}

Status GraphCall::charge(const std::vector<std::vector<Token>>& texts) {
  for (const std::vector<Token>& text : texts) prompt_tokens_ += static_cast<int64_t>(text.size());
  if (waiting_ != nullptr) RETURN_IF_ERROR(waiting_->grow(prompt_tokens_));
  if (ticket_ == nullptr) return ok_status();
  ASSIGN_OR_RETURN(charged_, ticket_->charge(prompt_tokens_));
  return ok_status();
}

Status GraphCall::submit() {
  const LoadedModel& model = *lease_;
  const bool fits = is_text() ? model.kind() != ModelKind::tensors : model.kind() != ModelKind::generator;
  if (!fits) return wrong_kind(model, context_.manager.catalog()->shown(model.id));
  submitted_ = context_.clock.now();
  {
    const std::lock_guard lock(mutex_);
    submitted_to_ = lease_;
  }
  if (is_text()) {
    ASSIGN_OR_RETURN(std::vector<std::vector<Token>> texts, tokens());
    RETURN_IF_ERROR(charge(texts));
    return model.graph != nullptr ? submit_texts(std::move(texts)) : submit_prompts(std::move(texts));
  }
  RETURN_IF_ERROR(charge({}));
  std::optional<TimePoint> deadline;
  if (context_.longest) deadline = arrived_ + *context_.longest;
  return remember(model.graph->infer(
      std::move(infer_.call), deadline,
      [self = shared_from_this()](Result<std::vector<NamedTensor>> outputs) { self->end_later(std::move(outputs)); }));
}

Status GraphCall::submit_texts(std::vector<std::vector<Token>> texts) {
  const bool pools = embed_.options.pooling != EmbeddingPooling::automatic;
  if (pools || embed_.options.normalize) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("the model '{}' makes vectors as its files say; its settings pooling and "
                                  "normalize_embeddings say otherwise, and a request does not",
                                  context_.manager.catalog()->shown(lease_->id)),
                      pools ? "pooling" : "normalize");
  }
  dimensions_ = static_cast<size_t>(lease_->graph->spec().dimensions);
  std::optional<TimePoint> deadline;
  if (context_.longest) deadline = arrived_ + *context_.longest;
  return remember(lease_->graph->embed(
      std::move(texts), deadline,
      [self = shared_from_this()](Result<std::vector<float>> vectors) { self->end_later(std::move(vectors)); }));
}

Status GraphCall::remember(Result<GraphCore::JobId> job) {
  RETURN_IF_ERROR(job);
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    job_ = *job;
    cancelled = cancelled_;
  }
  if (cancelled) cancel();
  return ok_status();
}

// Each text is a request of its own to the engine, which computes them together.
Status GraphCall::submit_prompts(std::vector<std::vector<Token>> texts) {
  EngineCore& core = *lease_->core;
  const int32_t width = lease_->spec.hidden_size;
  if (width <= 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("what runs the model '{}' gives no hidden states, of which embeddings are made",
                                  context_.manager.catalog()->shown(lease_->id)),
                      "model");
  }
  dimensions_ = static_cast<size_t>(width);
  std::vector<size_t> lengths;
  std::vector<RequestId> ids;
  for (const std::vector<Token>& text : texts) {
    lengths.push_back(text.size());
    ids.push_back(next_prompt_id());
  }
  {
    const std::lock_guard lock(mutex_);
    prompts_ = ids;
  }
  const TenantShare tenant = ticket_ == nullptr ? TenantShare{} : ticket_->tenant();
  const auto reader = std::make_shared<PromptReader>(shared_from_this(), std::move(lengths), dimensions_);
  bool failed = false;
  for (size_t i = 0; i < texts.size(); ++i) {
    Request request;
    request.id = ids[i];
    request.prompt = std::move(texts[i]);
    request.sampling.prompt_rows = PromptRows::hidden;
    request.sampling.max_tokens = 0;
    request.tenant = tenant;
    if (context_.longest) request.deadline = arrived_ + *context_.longest;
    request.sink = std::make_shared<PromptReader::Sink>(reader, i);
    const Status accepted = failed || is_cancelled() ? make_error(ErrorCode::cancelled, "the request was cancelled")
                                                     : core.submit(std::move(request));
    if (accepted.ok()) continue;
    // The others are of no use to anybody.
    if (!std::exchange(failed, true)) {
      for (size_t j = 0; j < i; ++j) core.cancel(ids[j]);
    }
    reader->end(accepted.error());
  }
  return ok_status();
}

// ---- the core's thread: onwards on a text thread

void GraphCall::end_later(Result<std::vector<float>> vectors) {
  auto held = std::make_shared<Result<std::vector<float>>>(std::move(vectors));
  context_.pool.post([self = shared_from_this(), held] {
    if (!held->ok()) return self->fail(held->error());
    EmbedAnswer answer;
    answer.model = self->context_.manager.catalog()->shown(self->lease_->id);
    answer.vectors = std::move(**held);
    answer.dimensions = self->dimensions_;
    answer.prompt_tokens = self->prompt_tokens_;
    self->finish(std::nullopt);
    if (const EmbedCallback done = std::exchange(self->embedded_, nullptr)) done(std::move(answer));
  });
}

void GraphCall::end_later(Result<std::vector<NamedTensor>> outputs) {
  auto held = std::make_shared<Result<std::vector<NamedTensor>>>(std::move(outputs));
  context_.pool.post([self = shared_from_this(), held] {
    if (!held->ok()) return self->fail(held->error());
    InferAnswer answer;
    answer.model = self->lease_->id;
    answer.outputs = std::move(**held);
    self->finish(std::nullopt);
    if (const InferCallback done = std::exchange(self->inferred_, nullptr)) done(std::move(answer));
  });
}

// ---- text threads

void GraphCall::fail(const Error& error) {
  finish(error);
  if (const EmbedCallback embedded = std::exchange(embedded_, nullptr)) {
    embedded(error);
  } else if (const InferCallback inferred = std::exchange(inferred_, nullptr)) {
    inferred(error);
  }
}

// What is held for the request is given back before its client hears of the end.
void GraphCall::finish(const std::optional<Error>& error) {
  waiting_.reset();
  if (ticket_ != nullptr) {
    ticket_->settle(std::exchange(charged_, 0), error ? 0 : prompt_tokens_);
    ticket_.reset();
  }
  if (metrics_ != nullptr) {
    const TimePoint now = context_.clock.now();
    GenerateOutcome outcome;
    outcome.error = error;
    outcome.usage.prompt_tokens = static_cast<int32_t>(std::min<int64_t>(prompt_tokens_, INT32_MAX));
    outcome.stats.submitted = submitted_;
    outcome.stats.finished = now;
    FinishReason reason = FinishReason::stop;
    if (error) reason = error->code == ErrorCode::cancelled ? FinishReason::cancelled : FinishReason::failed;
    if (!error && is_text()) metrics_->record_prompt(now, outcome.usage.prompt_tokens);
    metrics_->record_outcome(outcome, reason, {}, now);
  } else if (error) {
    context_.refused(error->code);
  }
  lease_.reset();
}

}  // namespace inferneo
