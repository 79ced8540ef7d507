// What goes into an engine core and what comes out: plain data and one sink per request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "admission/tenant.h"
#include "base/clock.h"
#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "models/model_runner.h"
#include "text/grammar.h"

namespace inferneo {

using RequestId = uint64_t;

enum class FinishReason : uint8_t { stop, length, cancelled, failed };

// Numbers of one request, filled by the engine and recorded by those above (metrics, experiments).
struct RequestStats {
  TimePoint submitted{};
  TimePoint scheduled{};  // first step that computed a token of it
  TimePoint first_token{};
  TimePoint finished{};
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, taken from the prefix cache
  int32_t output_tokens = 0;  // over all samples
  int32_t preemptions = 0;
  int32_t draft_tokens = 0;     // guessed and verified, over all samples
  int32_t accepted_tokens = 0;  // of them
  // Of the steps that computed sample 0, the waits between them left out: to its first token, and in all.
  Duration computing_first{0};
  Duration computing{0};
};

struct RequestOutcome {
  FinishReason reason = FinishReason::stop;  // of the last sample to end
  std::optional<Error> error;                // with failed, and with cancelled by deadline
  RequestStats stats;
};

// Receives a request's events, all on the engine thread, in order; must neither block nor throw. For each accepted
// request exactly one on_done comes last, whatever happens.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void on_prompt_logprobs(std::vector<TokenLogprobs> logprobs) { (void)logprobs; }
  // SamplingParams::prompt_rows of the whole prompt: [prompt tokens, width].
  virtual void on_prompt_rows(std::vector<float> rows) { (void)rows; }
  // `logprobs` is empty or parallel to `tokens`. An end-of-sequence or stop token that ended the sample is delivered
  // with is_stop_token = true, so that the text side can leave it out.
  virtual void on_token(int32_t sample, Token token, const TokenLogprobs* logprobs, bool is_stop_token) = 0;
  // stop_token: the token id that ended the sample, when one did.
  virtual void on_sample_finished(int32_t sample, FinishReason reason, std::optional<Token> stop_token) = 0;
  virtual void on_done(const RequestOutcome& outcome) = 0;
};

struct Request {
  RequestId id = 0;           // unique within the process
  std::vector<Token> prompt;  // at least one token
  SamplingParams sampling;    // stop strings are the text side's business: it cancels a sample
  uint64_t seed = 0;          // resolved: sampling.seed or drawn at admission
  int32_t priority = 0;       // smaller is served first
  TenantShare tenant;         // fair shares among equal priorities
  bool idle = false;          // nobody waits for it: computed only when the process has nothing else to do
  std::optional<TimePoint> deadline;
  std::vector<Token> prediction;                   // what the output may be like: drafts are looked up here too
  std::string cache_salt;                          // prefix-cache blocks are shared only within equal salts
  std::shared_ptr<const GrammarCompiled> grammar;  // compiled on the text side; the engine makes a matcher per sample
  bool needs_host_tokens = false;                  // stop strings: never run ahead
  std::shared_ptr<TokenSink> sink;
};

}  // namespace inferneo
