// One request's way through the text side: prepare (lease, template, tokenize, grammar), submit, then turn the engine's
// tokens into text, stop at stop strings, and report the end exactly once.
//
// Threads: prepare and drain run on text threads, one at a time for a request; the TokenSink functions run on the
// engine thread and only queue; cancel() comes from anywhere. Ownership: shared by the engine (as sink), by queued text
// tasks and by the caller (as handle). The lease ends on a text thread, never on the engine thread that it keeps alive.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "manager/manager_core.h"
#include "serving/inference_service.h"
#include "serving/model_metrics.h"
#include "serving/request_spans.h"
#include "serving/stop_filter.h"
#include "serving/text_pool.h"

namespace inferneo {

// What generations share; owned by the service, outlives them all.
struct GenerationContext {
  ManagerCore& manager;
  TextPool& pool;
  const Clock& clock;
  std::function<std::shared_ptr<ModelMetrics>(const std::string& model)> metrics;
  std::function<uint64_t()> next_seed;
  std::function<void(ErrorCode)> refused;  // a request that ended without having reached a model
  Admission* admission = nullptr;          // of the whole server; none: without bounds of its own
  std::optional<Duration> longest = {};    // after which a request is ended, from its arrival
};

class Generation final : public GenerationHandle, public TokenSink, public std::enable_shared_from_this<Generation> {
 public:
  Generation(GenerationContext& context, RequestId id, GenerateRequest request, std::shared_ptr<OutputSink> sink);

  void start();
  void cancel() override;

  void on_prompt_logprobs(std::vector<TokenLogprobs> logprobs) override;
  void on_prompt_rows(std::vector<float> rows) override;
  void on_token(int32_t sample, Token token, const TokenLogprobs* logprobs, bool is_stop_token) override;
  void on_sample_finished(int32_t sample, FinishReason reason, std::optional<Token> stop_token) override;
  void on_done(const RequestOutcome& outcome) override;

 private:
  struct Event {
    enum class Kind { prompt_logprobs, prompt_rows, token, sample_finished, done } kind = Kind::token;
    int32_t sample = 0;
    Token token = 0;
    bool is_stop_token = false;
    std::optional<TokenLogprobs> logprobs;
    std::vector<TokenLogprobs> prompt_logprobs;
    std::vector<float> prompt_rows;
    FinishReason reason = FinishReason::stop;
    std::optional<Token> stop_token;
    RequestOutcome outcome;
  };
  struct Sample {
    std::unique_ptr<StreamDecoder> decoder;
    std::optional<StopFilter> stops;
    OutputDelta delta;  // gathered, not sent yet
    bool dirty = false;
    bool finished = false;  // its last delta is sent or gathered
    int32_t num_tokens = 0;
    std::optional<FinishReason> reason;   // none: the request's end is its own
    std::optional<TimePoint> last_token;  // engine thread only
  };

  // An answer that is being kept as it comes, for the model's cache.
  struct Recording {
    AnswerKey key{};
    std::shared_ptr<CachedAnswer> answer = std::make_shared<CachedAnswer>();
  };

  bool is_cancelled();
  void on_lease(Result<ModelLease> lease);
  void prepare(Result<ModelLease> lease);
  Status read_prompt();  // and what the model's defaults say
  void open_samples(const LoadedModel& model);
  Result<Request> make_request(const LoadedModel& model);
  Status submit(LoadedModel& model);
  Result<std::vector<Token>> prompt_tokens() const;
  void apply_defaults();
  void send_prompt_info(std::vector<TokenLogprobs> logprobs);
  void count_prompt(TimePoint now);  // once; engine thread
  void enqueue(Event event);
  void drain();
  void handle(Event& event);
  void handle_token(Event& event);
  void finish_sample(Sample& sample, FinishReason reason, std::string stop_reason);
  void append_text(int32_t index, Sample& sample, std::string text);
  void decode_failed(const Error& error);
  TokenLogprobText describe(const TokenLogprobs& logprobs) const;
  TokenLogprobText describe_one(Token token, float logprob) const;
  Status charge(const LoadedModel& model, bool waits);
  void leave_queue() { waiting_.reset(); }
  void settle(int64_t used);
  void fail(Error error);
  void finish(GenerateOutcome outcome, FinishReason reason);
  // generation_answers.cc:
  bool may_use_answers(const LoadedModel& model) const;
  std::shared_ptr<const CachedAnswer> known_answer(const LoadedModel& model);  // null: none; this one is recorded then
  Status replay(std::shared_ptr<const CachedAnswer> answer);
  Event replayed_event(size_t index) const;
  void replay_some(size_t from);
  void record(const Event& event);
  void send_spans(const GenerateOutcome& outcome, FinishReason reason);

  GenerationContext& context_;
  const RequestId id_;
  GenerateRequest request_;
  const TimePoint arrived_;
  std::shared_ptr<OutputSink> sink_;
  ModelLease lease_;
  std::shared_ptr<ModelMetrics> metrics_;
  std::vector<Token> prompt_;
  std::vector<Sample> samples_;
  bool prompt_counted_ = false;  // engine thread only
  std::optional<Error> text_error_;
  std::unique_ptr<Recording> recording_;          // text threads, as the next; null: this answer is not kept
  std::shared_ptr<const CachedAnswer> replayed_;  // null: an engine answers
  std::unique_ptr<AdmissionPlace> waiting_;       // until its first event from the engine
  int64_t charged_ = 0;                           // tokens, from the ticket
  bool gathers_ = false;                          // tokens may wait for others; as of the submission
  GenerationTimes times_;                         // of a traced request alone
  std::thread::id asker_;                         // the same

  std::mutex mutex_;  // guards what follows
  std::vector<Event> events_;
  bool drain_scheduled_ = false;
  bool first_told_ = false;
  bool submitted_ = false;
  bool cancelled_ = false;
  std::weak_ptr<LoadedModel> submitted_to_;
};

}  // namespace inferneo
