// Whatever the body, either API reads it into values within their limits, or refuses it with a short error.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "require.h"
#include "server/openai/request_draft.h"

namespace {

bool is_within(float value, float low, float high) { return value >= low && value <= high; }

void check(const inferneo::Result<inferneo::RequestDraft>& draft) {
  if (!draft.ok()) {
    require(draft.error().code == inferneo::ErrorCode::invalid_argument, "the client's fault");
    require(!draft.error().message.empty() && draft.error().message.size() < 1000, "an error fits a line");
    return;
  }
  const inferneo::SamplingParams& sampling = draft->request.sampling;
  require(sampling.n >= 1 && sampling.n <= inferneo::kMaxSamples, "n");
  require(is_within(sampling.temperature, 0.0F, 2.0F) && is_within(sampling.min_p, 0.0F, 1.0F), "temperature, min_p");
  require(is_within(sampling.top_p, 1e-45F, 1.0F) && is_within(sampling.typical_p, 1e-45F, 1.0F), "top_p, typical_p");
  require(is_within(sampling.repetition_penalty, 1e-45F, 100.0F), "repetition_penalty");
  require(sampling.stop.size() <= inferneo::kMaxStops, "stop");
  require(sampling.logprobs.value_or(0) <= inferneo::kMaxTopLogprobs, "logprobs");
  require(sampling.logit_bias.size() <= inferneo::kMaxListedTokens, "logit_bias");
  const int fewest = sampling.echo ? 0 : 1;
  require(sampling.max_tokens.value_or(1) >= fewest && sampling.min_tokens >= 0, "max_tokens, min_tokens");
  require(sampling.grammar.text.size() <= inferneo::kMaxGrammarBytes, "grammar");
  require(draft->api == inferneo::Api::chat ? !draft->messages.empty() : !draft->prompts.empty(),
          "something to answer");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check(inferneo::parse_chat_request(body));
  check(inferneo::parse_completion_request(body));
  return 0;
}
