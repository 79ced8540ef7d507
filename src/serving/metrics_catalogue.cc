#include "serving/metrics_catalogue.h"

#include <array>

namespace inferneo {
namespace {

constexpr std::string_view kModel = "model_name,engine,version";

constexpr std::array kCatalogue = {
    // ---- what vLLM has, under its names
    MetricInfo{"vllm:num_requests_running", MetricType::gauge, kModel, "Requests whose tokens are being computed."},
    MetricInfo{"vllm:num_requests_waiting", MetricType::gauge, kModel, "Requests that wait for their first step."},
    MetricInfo{"vllm:kv_cache_usage_perc", MetricType::gauge, kModel,
               "KV blocks in use over the model's share, 0 to 1."},
    MetricInfo{"vllm:cache_config_info", MetricType::gauge, "model_name,engine,version,block_size,num_gpu_blocks",
               "Shape of the KV cache, as labels."},
    MetricInfo{"vllm:lora_requests_info", MetricType::gauge, "max_lora,running_lora_adapters,waiting_lora_adapters",
               "LoRA adapters in use: none. The value is the time, as its readers expect."},
    MetricInfo{"vllm:prompt_tokens", MetricType::counter, kModel, "Prompt tokens processed, cached ones included."},
    MetricInfo{"vllm:prompt_tokens_cached", MetricType::counter, kModel,
               "Those of them that came from the prefix cache, of ended requests."},
    MetricInfo{"vllm:generation_tokens", MetricType::counter, kModel, "Tokens generated."},
    MetricInfo{"vllm:request_success", MetricType::counter, "model_name,engine,version,finished_reason",
               "Ended requests by reason: stop, length, abort, error."},
    MetricInfo{"vllm:num_preemptions", MetricType::counter, kModel,
               "Sequences that gave their blocks up and ran again."},
    MetricInfo{"vllm:prefix_cache_queries", MetricType::counter, kModel,
               "Prompt tokens looked up in the prefix cache."},
    MetricInfo{"vllm:prefix_cache_hits", MetricType::counter, kModel, "Prompt tokens found in the prefix cache."},
    MetricInfo{"vllm:time_to_first_token_seconds", MetricType::histogram, kModel,
               "From submission to the first token."},
    MetricInfo{"vllm:inter_token_latency_seconds", MetricType::histogram, kModel,
               "Between neighbouring tokens of a sample."},
    MetricInfo{"vllm:request_time_per_output_token_seconds", MetricType::histogram, kModel,
               "Decode time over tokens after the first, per request."},
    MetricInfo{"vllm:e2e_request_latency_seconds", MetricType::histogram, kModel, "From submission to the end."},
    MetricInfo{"vllm:request_queue_time_seconds", MetricType::histogram, kModel, "From submission to the first step."},
    MetricInfo{"vllm:request_inference_time_seconds", MetricType::histogram, kModel, "From the first step to the end."},
    MetricInfo{"vllm:request_prefill_time_seconds", MetricType::histogram, kModel,
               "From the first step to the first token."},
    MetricInfo{"vllm:request_decode_time_seconds", MetricType::histogram, kModel, "From the first token to the end."},
    MetricInfo{"vllm:request_prompt_tokens", MetricType::histogram, kModel, "Prompt tokens per request."},
    MetricInfo{"vllm:request_prefill_kv_computed_tokens", MetricType::histogram, kModel,
               "Prompt tokens per request that were not in the cache."},
    MetricInfo{"vllm:request_generation_tokens", MetricType::histogram, kModel, "Generated tokens per request."},
    MetricInfo{"vllm:request_max_num_generation_tokens", MetricType::histogram, kModel,
               "Generated tokens of a request's longest sample."},
    MetricInfo{"vllm:request_params_max_tokens", MetricType::histogram, kModel,
               "The max_tokens of requests that set it."},
    MetricInfo{"vllm:request_params_n", MetricType::histogram, kModel, "The n of requests."},
    MetricInfo{"vllm:iteration_tokens_total", MetricType::histogram, kModel, "Tokens computed per step."},
    // ---- the server
    MetricInfo{"inferneo:ready", MetricType::gauge, "",
               "1 while requests are taken and every engine with work steps, as /ready says."},
    MetricInfo{"inferneo:uptime_seconds", MetricType::gauge, "", "Since the server began."},
    MetricInfo{"inferneo:num_requests_running", MetricType::gauge, "",
               "Requests whose tokens are being computed, over all models."},
    MetricInfo{"inferneo:num_requests_waiting", MetricType::gauge, "",
               "Requests that wait to be read, for a model or for their first step."},
    MetricInfo{"inferneo:kv_cache_usage_perc", MetricType::gauge, "",
               "The fullest model's share of KV blocks in use, 0 to 1."},
    MetricInfo{"inferneo:requests_refused", MetricType::counter, "code",
               "Requests that ended without reaching a model, by error."},
    MetricInfo{"inferneo:text_queue", MetricType::gauge, "", "Text work of new requests that nobody has begun."},
    MetricInfo{"inferneo:engine_steps", MetricType::counter, kModel, "Steps of the engine."},
    MetricInfo{"inferneo:memory_used_bytes", MetricType::gauge, "model_name,version,purpose",
               "Booked memory by model and purpose."},
    MetricInfo{"inferneo:memory_budget_bytes", MetricType::gauge, "", "The memory ledger's ceiling."},
    // ---- a model's life
    MetricInfo{"inferneo:model_state", MetricType::gauge, "model_name,engine,version,state",
               "1 for the state that the model is in."},
    MetricInfo{"inferneo:model_leases", MetricType::gauge, kModel,
               "Users of the model, for as long as which it stays."},
    MetricInfo{"inferneo:model_waiting", MetricType::gauge, kModel, "Requests that wait for the model to be loaded."},
    MetricInfo{"inferneo:model_misses", MetricType::counter, kModel,
               "Requests that found the model not in memory and led to a load."},
    MetricInfo{"inferneo:model_loads", MetricType::counter, kModel, "Loads of the model that succeeded."},
    MetricInfo{"inferneo:model_load_failures", MetricType::counter, kModel, "Loads of the model that failed."},
    MetricInfo{"inferneo:model_load_seconds", MetricType::histogram, kModel, "Duration of loads that succeeded."},
    MetricInfo{"inferneo:model_last_load_seconds", MetricType::gauge, kModel,
               "Duration of the model's last load; 0: none yet."},
    MetricInfo{"inferneo:model_wait_seconds", MetricType::histogram, kModel,
               "How long requests waited that found the model not ready."},
    MetricInfo{"inferneo:model_unloads", MetricType::counter, "model_name,engine,version,reason",
               "Times that the model left the memory: asked, idle, room, failed."},
    MetricInfo{"inferneo:model_eviction_age_seconds", MetricType::histogram, kModel,
               "Time in memory of the model when it had to make room."},
    MetricInfo{"inferneo:model_loaded_bytes", MetricType::counter, kModel, "Bytes that loads brought into memory."},
    MetricInfo{"inferneo:model_unloaded_bytes", MetricType::counter, kModel,
               "Bytes that the model's unloads gave back."},
    // ---- rules and tests
    MetricInfo{"inferneo:routing_rule_hits", MetricType::counter, "rule", "Requests that a routing rule decided."},
    MetricInfo{"inferneo:ab_test_state", MetricType::gauge, "test,state", "1 for the state that the A/B test is in."},
    MetricInfo{"inferneo:ab_test_requests", MetricType::counter, "test,arm",
               "Requests that an arm of an A/B test answered."},
    MetricInfo{"inferneo:ab_test_failures", MetricType::counter, "test,arm",
               "Those of them that failed by the arm's doing."},
    MetricInfo{"inferneo:ab_test_share", MetricType::gauge, "test,arm",
               "The arm's share of the test's requests at present, 0 to 1."},
    MetricInfo{"inferneo:ab_test_arm_stopped", MetricType::gauge, "test,arm",
               "1 once a guardrail has stopped the arm."},
};

}  // namespace

std::span<const MetricInfo> metrics_catalogue() { return kCatalogue; }

}  // namespace inferneo
