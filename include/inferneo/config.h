// What an engine and a server can be told: plain data with its defaults, which are written nowhere else.
// Each field has one row in src/base/config/field_table.cc: flag, YAML key, environment variable, range, help and docs
// (docs/configuration.md is generated from them). load_config() fills this struct from flags, environment and file; who
// embeds the engine may fill it by hand and call validate_config(). Secrets are never printed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "inferneo/config_entries.h"
#include "inferneo/experiments.h"
#include "inferneo/routing.h"
#include "inferneo/shadow.h"

namespace inferneo {

// What holds for routing as a whole.
struct RoutingConfig {
  RuleSetOptions options = {};
  std::vector<std::string> routed_names = {};  // besides `auto`: names whose requests the rules see

  bool operator==(const RoutingConfig&) const = default;
};

struct EngineConfig {
  // Models
  std::vector<std::string> model = {};  // paths of Hugging Face directories or hub ids; the first is the default
  std::vector<std::string> served_model_name = {};  // one model: all its names; several: one for each, in their order
  std::optional<int> max_model_len = {};            // tokens of prompt and output; none: "auto", what fits into memory
  std::string dtype = "auto";                       // compute type of weights; auto: as the checkpoint says
  std::string quantization = "none";                // of weights at load: none, int8, int4 or fp8
  std::string kv_cache_dtype = "auto";              // auto: the compute type
  std::string chat_template = {};                   // file that replaces the models' own template; empty: none
  std::string task = "auto";                        // what an ONNX graph is for: auto, generate, embed, tensors
  std::string pooling = "auto";                     // of an embedding graph: auto, mean, cls, last
  std::string normalize_embeddings = "auto";        // to the length 1: auto, true, false
  std::vector<std::string> model_roots = {};        // folders whose models may be named later, besides those in `model`
  std::string home = {};                            // where Inferneo keeps files of its own; resolved as well
  std::string registry = {};                        // file of the registered models; "memory": none
  double packed_cache_gb = 50.0;                    // GiB of packed weights kept in `home`; 0: none
  int max_models = 0;                               // 0: no limit but memory
  bool enable_lazy_loading = false;                 // load a model at its first request
  bool warm_up = true;                              // a loaded model computes a few tokens before it is ready
  double load_timeout = 600.0;                      // seconds that a load may take, downloads apart; 0: no limit
  double keep_alive = 300.0;                        // seconds that one so loaded stays without a request; 0: for ever
  double kv_keep_alive = 60.0;                      // seconds that an idle model keeps KV memory; 0: for ever

  // Hub
  std::string hub_cache = {};                           // load_config() resolves it from HF_HOME and HOME
  std::string hub_endpoint = "https://huggingface.co";  // of the hub, or a mirror of it
  std::string hub_token = {};                           // secret; before what hub_token_file holds
  std::string hub_token_file = {};                      // load_config() resolves it as the cache
  bool hub_offline = false;                             // never ask the hub

  // Batching
  int max_num_seqs = 256;                          // sequences of one step
  std::optional<int> max_num_batched_tokens = {};  // tokens of one step; none: as many as inter_token_target_ms allows
  double inter_token_target_ms = 25.0;             // of a step of decodes with prompts beside them, without the above
  int max_queue_requests = 1024;                   // waiting requests before new ones are refused
  int64_t max_queue_tokens = 1 << 20;              // their prompt tokens
  double request_timeout = 0.0;                    // seconds; 0: none
  double idle_compute_share = 0.02;          // of the time, for copies beside requests; 0: only when there are none
  bool deterministic = false;                // batch-invariant kernels: the same tokens whatever the batch
  std::optional<uint64_t> seed = {};         // of requests that bring none; none: drawn for each
  bool enable_speculative_decoding = false;  // what came before is looked up, and what followed it is verified
  int num_speculative_tokens = 8;            // guessed at most at a time
  std::string draft_model = {};              // that guesses, where speculation is on; directory or hub id; empty: none

  // KV cache
  int block_size = 16;  // tokens of a block
  bool enable_prefix_caching = true;
  bool enable_paged_attention = true;  // false: one block per sequence, and no prefix cache
  double kv_cache_gb = 0.0;            // GiB for all models; 0: what the weights leave of max_memory_gb
  std::string prefix_cache_dir = {};   // folder of the prefix cache's level on disk; empty: none
  double prefix_cache_disk_gb = 10.0;  // GiB of files there, of all models; 0: none
  double token_cache_mb = 16.0;        // MiB of texts and their tokens that a model remembers; 0: none
  double answer_cache_mb = 0.0;        // MiB of whole answers to greedy requests that a model remembers; 0: none
  double answer_cache_ttl = 3600.0;    // seconds that an answer is remembered; 0: no limit

  // Device and memory
  std::string device = "auto";          // auto, cpu, cuda or cuda:N
  std::string isa = "auto";             // instruction set of the CPU kernels
  int num_threads = 0;                  // compute threads; 0: the CPU quota of the cgroup
  double max_memory_gb = 0.0;           // GiB, ceiling of the memory ledger; 0: 0.8 of the cgroup's limit
  double gpu_memory_utilization = 0.9;  // share of a GPU's memory
  double sleep_memory_share = 0.5;      // of max_memory_gb, for weights of a GPU's models that sleep; 0: none sleeps
  bool enable_cuda_graph = true;
  int tensor_parallel_size = 1;  // GPUs that share a model: the one of `device` and those behind it

  // ONNX
  std::string onnxruntime = {};        // file of its shared library; empty: searched for
  std::string onnx_check = "foreign";  // which graphs a child process opens first: foreign, always, never
  double onnx_run_timeout = 300.0;     // seconds that one run of a graph may take; 0: no limit
  std::string onnx_provider = "auto";  // what computes graphs: auto, cpu, cuda, tensorrt
  double onnx_gpu_memory_gb = 0.0;     // GiB of a GPU that a graph may take there; 0: as many as there are

  // Server
  std::string host = "127.0.0.1";
  int port = 8000;                                // 0: any free port
  std::vector<std::string> api_key = {};          // secret; any of them opens the API
  std::vector<std::string> admin_key = {};        // secret; any of them opens the admin routes
  std::string tls_cert = {};                      // PEM file with the chain; needs tls_key
  std::string tls_key = {};                       // PEM file
  bool insecure = false;                          // allow a public address without an API key
  int io_threads = 0;                             // 0: one per core, at most 4
  double max_body_mb = 8.0;                       // MiB of a request's body, after decompression
  std::vector<std::string> allowed_origins = {};  // browsers' origins for CORS; "*": all
  bool metrics_public = false;                    // /metrics without a key
  double drain_timeout = 30.0;                    // seconds that running requests get at shutdown

  // Admission: of each key, and of all requests without a key together; 0: no limit
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;         // prompts and what is generated
  int64_t max_concurrent_requests = 0;   // under way at a time
  int64_t max_total_queue_requests = 0;  // of the whole server: waiting for their first token
  int64_t max_total_queue_tokens = 0;    // their prompt tokens

  // Logging
  std::string log_level = "info";  // debug, info, warning, error, off
  bool quiet = false;              // no progress lines
  // Traces of a server's requests; without an address there are none
  std::string otlp_endpoint = {};              // of the collector; /v1/traces follows it
  std::string otlp_traces_endpoint = {};       // the whole address, before otlp_endpoint
  std::vector<std::string> otlp_headers = {};  // secret; name=value, with %XX as in addresses
  std::string otlp_service_name = "inferneo";
  double trace_sample_ratio = 1.0;  // of requests whose sender has not decided

  // Of the configuration file alone; no row of the table is theirs
  std::vector<ModelEntry> models = {};              // beside those in `model`
  std::map<std::string, std::string> aliases = {};  // alias -> name, or name:version
  std::vector<RoutingRule> routing_rules = {};      // of the configuration file, as are the next three
  RoutingConfig routing = {};
  std::vector<ABTestConfig> ab_tests = {};  // begin with the server
  std::vector<ShadowConfig> shadow = {};
  std::vector<KeyLimits> key_limits = {};  // API keys beside those in `api_key`
};

}  // namespace inferneo
