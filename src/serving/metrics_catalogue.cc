#include "serving/metrics_catalogue.h"

#include <array>

namespace inferneo {
namespace {

constexpr std::array kCatalogue = {
    MetricInfo{"vllm:num_requests_running", MetricType::gauge, "Requests whose tokens are being computed."},
    MetricInfo{"vllm:num_requests_waiting", MetricType::gauge, "Requests that wait for their first step."},
    MetricInfo{"vllm:kv_cache_usage_perc", MetricType::gauge, "KV blocks in use over the model's share, 0 to 1."},
    MetricInfo{"vllm:cache_config_info", MetricType::gauge, "Shape of the KV cache, as labels."},
    MetricInfo{"vllm:prompt_tokens", MetricType::counter, "Prompt tokens processed, cached ones included."},
    MetricInfo{"vllm:generation_tokens", MetricType::counter, "Tokens generated."},
    MetricInfo{"vllm:request_success", MetricType::counter, "Ended requests by reason: stop, length, abort, error."},
    MetricInfo{"vllm:num_preemptions", MetricType::counter, "Sequences that gave their blocks up and ran again."},
    MetricInfo{"vllm:prefix_cache_queries", MetricType::counter, "Prompt tokens looked up in the prefix cache."},
    MetricInfo{"vllm:prefix_cache_hits", MetricType::counter, "Prompt tokens found in the prefix cache."},
    MetricInfo{"vllm:time_to_first_token_seconds", MetricType::histogram, "From submission to the first token."},
    MetricInfo{"vllm:inter_token_latency_seconds", MetricType::histogram, "Between neighbouring tokens of a sample."},
    MetricInfo{"vllm:request_time_per_output_token_seconds", MetricType::histogram,
               "Decode time over tokens after the first, per request."},
    MetricInfo{"vllm:e2e_request_latency_seconds", MetricType::histogram, "From submission to the end."},
    MetricInfo{"vllm:request_queue_time_seconds", MetricType::histogram, "From submission to the first step."},
    MetricInfo{"vllm:request_inference_time_seconds", MetricType::histogram, "From the first step to the end."},
    MetricInfo{"vllm:request_prefill_time_seconds", MetricType::histogram, "From the first step to the first token."},
    MetricInfo{"vllm:request_decode_time_seconds", MetricType::histogram, "From the first token to the end."},
    MetricInfo{"vllm:request_prompt_tokens", MetricType::histogram, "Prompt tokens per request."},
    MetricInfo{"vllm:request_generation_tokens", MetricType::histogram, "Generated tokens per request."},
    MetricInfo{"vllm:iteration_tokens_total", MetricType::histogram, "Tokens computed per step."},
    MetricInfo{"inferneo:engine_steps", MetricType::counter, "Steps of the engine."},
    MetricInfo{"inferneo:memory_used_bytes", MetricType::gauge, "Booked memory by model and purpose."},
    MetricInfo{"inferneo:memory_budget_bytes", MetricType::gauge, "The memory ledger's ceiling."},
    MetricInfo{"inferneo:model_loads", MetricType::counter, "Loads of the model that succeeded."},
    MetricInfo{"inferneo:routing_rule_hits", MetricType::counter, "Requests that a routing rule decided."},
    MetricInfo{"inferneo:ab_test_requests", MetricType::counter, "Requests that an arm of an A/B test answered."},
    MetricInfo{"inferneo:ab_test_failures", MetricType::counter, "Those of them that failed by the arm's doing."},
    MetricInfo{"inferneo:shadow_copies", MetricType::counter,
               "Copies for shadow models that ended, by result: completed, dropped, failed."},
    MetricInfo{"inferneo:shadow_tokens", MetricType::counter,
               "Tokens of completed copies by kind: prompt, completion."},
    MetricInfo{"inferneo:model_misses", MetricType::counter,
               "Requests that found the model not in memory and led to a load."},
    MetricInfo{"inferneo:model_unloads", MetricType::counter, "Times that the model left the memory, by reason."},
    MetricInfo{"inferneo:model_waiting", MetricType::gauge, "Requests that wait for the model to be loaded."},
    MetricInfo{"inferneo:model_leases", MetricType::gauge, "Users of the model, for as long as which it stays."},
    MetricInfo{"inferneo:model_load_seconds", MetricType::gauge, "Duration of the model's last load."},
    MetricInfo{"inferneo:model_state", MetricType::gauge, "1 for the state that the model is in."},
};

}  // namespace

std::span<const MetricInfo> metrics_catalogue() { return kCatalogue; }

}  // namespace inferneo
