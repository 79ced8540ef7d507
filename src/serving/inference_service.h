// What the server, the CLI and the bindings see: requests in native types, text out. No JSON but a chat's opaque input.
//
// Thread-safe. Implemented by RoutedService over EngineService; tests may put a fake in its place.
// Each generate() call leads to exactly one OutputSink::on_done, errors included. Sinks are called from text threads,
// one call at a time for a request, and must not block; the server's sinks post to their io thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/result.h"
#include "engine/request.h"
#include "inferneo/embedding.h"
#include "inferneo/sampling_params.h"
#include "models/graph_runner.h"
#include "serving/admission.h"
#include "serving/metric_labels.h"
#include "serving/server_stats.h"
#include "text/tokenizer.h"
#include "tracing/request_trace.h"

namespace inferneo {

struct LoadedModel;

// Which sampling fields the caller set; the others follow the model's generation_config.json, where it has them.
struct ExplicitSampling {
  bool temperature = false;
  bool top_p = false;
  bool top_k = false;
  bool min_p = false;
  bool repetition_penalty = false;
};

// What routing rules and A/B tests may know of a request besides what it brings anyway. Gathered only where
// InferenceService::wants_traits() says so; never logged.
struct RequestTraits {
  std::string prompt;                     // a chat's last user message; empty: the text of the prompt itself
  std::vector<std::string> conversation;  // every message's text, in order
  std::vector<std::pair<std::string, std::string>> headers;  // lower-case names; without keys and cookies
  int64_t turns = 1;                                         // messages of the user
  bool has_tools = false;
  bool stream = false;
  std::string session;     // what an A/B test may stick to, besides the user
  std::string key;         // the same, of the request's own choice
  std::string forced_arm;  // for debugging: the arm that it wants
};

struct GenerateRequest {
  std::string request_id;  // shown in errors and headers
  std::string model;       // name, name:version or alias; empty: the default model
  // Of a caller that holds `model`, which then is its whole id: what it holds answers, also while it is to be unloaded.
  std::shared_ptr<LoadedModel> held = {};
  std::variant<std::string, std::vector<Token>, ChatInput> prompt;
  bool add_special_tokens = true;   // for a text prompt
  bool skip_special_tokens = true;  // in the output
  bool whole = false;               // nobody looks before the end: text then comes in few large pieces
  SamplingParams sampling;
  ExplicitSampling explicit_sampling;
  int32_t priority = 0;
  std::optional<Duration> timeout;
  std::optional<int64_t> keep_alive;  // idle seconds that the model then stays in memory; -1: for ever
  std::string user;
  std::string cache_salt;
  std::string prediction;  // what the output may be like: where it is, tokens come sooner
  RequestTraits traits;
  std::shared_ptr<AdmissionTicket> ticket;         // from admit(); none: no limits, and the default tenant
  std::shared_ptr<const RequestTrace> trace = {};  // null: it is not traced
  // What depends on the model: called once it is loaded, on a text thread, before the prompt is made.
  std::function<void(const Tokenizer& tokenizer, GenerateRequest& request)> on_model = {};
  // A copy of another request, for a shadow model: computed only when nothing else is, only where the model is in
  // memory (else unavailable), and in nobody's metrics.
  bool is_copy = false;
  // Called on a text thread once the model's engine has accepted the request, which is as it was submitted.
  std::function<void(const GenerateRequest& request, int32_t prompt_tokens)> on_submitted = {};
};

struct TokenLogprobText {
  std::string text;   // decoded alone; may hold U+FFFD
  std::string bytes;  // raw bytes
  Token token = 0;
  float logprob = 0.0F;
  std::vector<TokenLogprobText> top;  // each without its own top
};

struct PromptInfo {  // once, before the first delta
  std::vector<Token> tokens;
  std::string echo_text;                   // only with SamplingParams::echo
  std::vector<TokenLogprobText> logprobs;  // only with prompt_logprobs; the first token has none
  std::string model;                       // resolved id that answers
  std::string chat_template = {};          // that rendered a chat in the place of the model's own; empty: that one
  std::shared_ptr<const Tokenizer> tokenizer = {};  // of that model
};

struct OutputDelta {
  int32_t sample = 0;
  std::string text;           // valid UTF-8; may be empty
  std::vector<Token> tokens;  // that led to this delta (text of held-back ones comes with a later delta)
  std::vector<TokenLogprobText> logprobs;
  std::optional<FinishReason> finish;  // stop or length, on a sample's last delta; other ends are on_done's to tell
  std::string stop_reason;             // the stop string, or the stop token's id as text, when one ended it
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t draft_tokens = 0;     // guessed; of the accepted ones, each saved a step
  int32_t accepted_tokens = 0;  // of them
  bool from_cache = false;  // nothing was computed: the model's cache of answers had it (of several: of one at least)
  int32_t cached_completion_tokens = 0;  // of completion_tokens, those that came from there
};

struct GenerateOutcome {
  std::optional<Error> error;
  Usage usage;
  RequestStats stats;
};

class OutputSink {
 public:
  virtual ~OutputSink() = default;
  // Before everything else, perhaps on the thread that calls generate(): "rule=code; model=code-llama". Again when the
  // next model of a chain takes the request over.
  virtual void on_route(std::string route) { (void)route; }
  virtual void on_prompt(PromptInfo info) { (void)info; }
  // SamplingParams::prompt_rows, once: [prompt tokens, width].
  virtual void on_prompt_rows(std::vector<float> rows) { (void)rows; }
  virtual void on_delta(OutputDelta delta) = 0;
  virtual void on_done(GenerateOutcome outcome) = 0;
};

class GenerationHandle {
 public:
  virtual ~GenerationHandle() = default;  // does not cancel
  virtual void cancel() = 0;              // idempotent; on_done still comes
};

struct ServedModel {
  std::string id;  // as served: what `model` may name
  std::string version;
  std::string root;     // what it was loaded from, as the operator wrote it
  int64_t created = 0;  // seconds since the epoch
  int32_t max_model_len = 0;
  std::string state;      // ready, loading, failed, ...
  std::string kind = {};  // generator, embedding or tensors; empty: not known, since it is not in memory
};

// Texts to be made vectors of.
struct EmbedRequest {
  std::string model;                                                  // as GenerateRequest's
  std::vector<std::variant<std::string, std::vector<Token>>> inputs;  // at least one
  EmbeddingOptions options = {};
  std::shared_ptr<LoadedModel> held = {};  // as GenerateRequest's, and so are the rest
  std::string user = {};
  RequestTraits traits = {};  // prompt and conversation are those of the inputs
  std::shared_ptr<AdmissionTicket> ticket = {};
  std::string request_id = {};
  std::function<void(std::string route)> on_route = {};  // as OutputSink::on_route; may be empty
};
struct EmbedAnswer {
  std::string model;           // resolved id that answers
  std::vector<float> vectors;  // [inputs, dimensions]
  size_t dimensions = 0;
  int64_t prompt_tokens = 0;
};

// Tensors for a graph.
struct InferRequest {
  std::string model;
  TensorCall call;
  std::shared_ptr<AdmissionTicket> ticket = {};
  std::string user = {};
  RequestTraits traits = {};
  std::string request_id = {};
  std::function<void(std::string route)> on_route = {};
};
struct InferAnswer {
  std::string model;  // name:version
  std::vector<NamedTensor> outputs;
};

// A model that takes tensors, as it is in memory.
struct GraphDescription {
  std::string model;                       // name:version
  std::vector<std::string> versions = {};  // all that are registered of its name
  GraphSpec graph;
};

// What somebody who waits for a model may be told.
struct WaitOutlook {
  std::string model;                  // name:version
  bool loading = false;               // else it waits for its turn
  size_t place = 0;                   // in the queue of loads; 1: the next
  std::optional<Duration> left = {};  // none: nothing to go by
};

// What became of a client's feedback on an answer.
struct FeedbackReceipt {
  std::string test = {};  // the A/B test that it counts in; empty: the answer was in none
  std::string arm = {};
};

// One series of /metrics at this moment; a histogram is a bundle of them.
struct MetricSample {
  std::string name;  // as in the catalogue (serving/metrics_catalogue.h)
  MetricLabels labels;
  std::variant<double, Histogram> value;
};

class InferenceService {
 public:
  virtual ~InferenceService() = default;
  // Never fails at once: every error arrives through on_done.
  virtual std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) = 0;

  // A place among the requests of this tenant, for GenerateRequest::ticket: held as long as any copy of it.
  // rate_limited when its limits leave none, with the time after which to try again. Cheap: before anything of a
  // request is read.
  virtual Result<std::shared_ptr<AdmissionTicket>> admit(TenantId tenant) {
    (void)tenant;
    return std::shared_ptr<AdmissionTicket>();
  }
  // What is left of its limits; nothing where there are none.
  virtual RateLimits rate_limits(TenantId tenant) const {
    (void)tenant;
    return {};
  }

  // Each leads to one call of `done`, errors included, on a text thread; what it gives back cancels. Of routing rules
  // those see these requests that ask for `embedding` or `tensors`; aliases and versions mean what they always do.
  using EmbedCallback = std::function<void(Result<EmbedAnswer>)>;
  virtual std::shared_ptr<GenerationHandle> embed(EmbedRequest request, EmbedCallback done) {
    (void)request;
    done(make_error(ErrorCode::unsupported, "there are no embeddings here"));
    return nullptr;
  }
  using InferCallback = std::function<void(Result<InferAnswer>)>;
  virtual std::shared_ptr<GenerationHandle> infer(InferRequest request, InferCallback done) {
    (void)request;
    done(make_error(ErrorCode::unsupported, "tensors are not taken here"));
    return nullptr;
  }
  // Calls back on a text thread once the model is there. invalid_argument for one that generates.
  using GraphCallback = std::function<void(Result<GraphDescription>)>;
  virtual void with_graph(const std::string& model, GraphCallback callback) {
    (void)model;
    callback(make_error(ErrorCode::unsupported, "tensors are not taken here"));
  }

  // Whether GenerateRequest::traits would be looked at. Cheap.
  virtual bool wants_traits() const { return false; }

  virtual std::vector<ServedModel> models() const = 0;  // one for each name, aliases included
  // What `name` means, a name:version too, under that name; empty: the default model. not_found names the nearest.
  virtual Result<ServedModel> model(const std::string& name) const {
    for (ServedModel& info : models()) {
      if (info.id == name || name.empty()) return std::move(info);
    }
    return make_error(ErrorCode::not_found, "the model '" + name.substr(0, 128) + "' does not exist", "model");
  }
  // None when `model` is there, is unknown, or nobody waits for it. After failed loads: how long nobody may try. Cheap.
  virtual std::optional<WaitOutlook> outlook(const std::string& model) const {
    (void)model;
    return std::nullopt;
  }
  // The tokenizer of a loaded model; not_found names the known ones.
  virtual Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string& model) = 0;
  // A score in [0, 1] for the answer to the request of this id. not_found: no such answer, or too long ago; conflict:
  // it has one; invalid_argument: the score.
  virtual Result<FeedbackReceipt> record_feedback(const std::string& request_id, double score) {
    (void)request_id;
    (void)score;
    return make_error(ErrorCode::not_found, "answers are not remembered here", "id");
  }
  // Runs work on the text pool; false when the pool's queue is full.
  virtual bool post_text_work(std::function<void()> work) = 0;
  // Calls back on a text thread once the model is there; no thread waits for its load. queue_full comes at once.
  using TokenizerCallback = std::function<void(Result<std::shared_ptr<const Tokenizer>>)>;
  virtual void with_tokenizer(const std::string& model, TokenizerCallback callback) = 0;
  // OK when requests are taken: not before the models are loaded, not after the end has begun. Cheap.
  virtual Status admission() const { return ok_status(); }
  // OK when requests are taken and every engine that has work has stepped within its deadline.
  virtual Status ready() const = 0;
  virtual std::vector<MetricSample> metrics() const = 0;
  virtual ServerStats stats() const { return {}; }
};

}  // namespace inferneo
