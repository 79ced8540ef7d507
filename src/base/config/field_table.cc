#include <algorithm>
#include <array>
#include <charconv>

#include "base/config/field.h"

namespace inferneo {
namespace {

constexpr std::array kDTypes = {FieldChoice{"auto"}, FieldChoice{"bf16", "bfloat16"}, FieldChoice{"f16", "float16"},
                                FieldChoice{"f32", "float32"}};
constexpr std::array kLogLevels = {FieldChoice{"debug"}, FieldChoice{"info"}, FieldChoice{"warning", "warn"},
                                   FieldChoice{"error"}, FieldChoice{"off"}};
constexpr double kMaxTokens = 1 << 24;  // of a context or a step
constexpr double kMaxGb = 1 << 20;      // a pebibyte
constexpr double kMaxSeconds = 1e6;

bool is_device(std::string_view value) {
  if (value == "auto" || value == "cpu" || value == "cuda") return true;
  constexpr std::string_view kPrefix = "cuda:";
  if (!value.starts_with(kPrefix)) return false;
  value.remove_prefix(kPrefix.size());
  return !value.empty() && value.size() <= 3 &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_power_of_two(std::string_view value) {
  int number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number > 0 && (number & (number - 1)) == 0;
}

// What fits into an Authorization header.
bool is_key(std::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// As browsers write it, since that is what it is compared with: scheme://host[:port] in lower case, nothing behind it.
bool is_origin(std::string_view value) {
  const size_t colon = value.find("://");
  if (colon == std::string_view::npos) return value == "*" || value.empty();
  const std::string_view scheme = value.substr(0, colon);
  const std::string_view host = value.substr(colon + 3);
  const auto is_plain = [](char c) { return c > ' ' && c < 0x7f && !(c >= 'A' && c <= 'Z') && c != '/' && c != '?'; };
  return !scheme.empty() && !host.empty() && std::all_of(scheme.begin(), scheme.end(), is_plain) &&
         std::all_of(host.begin(), host.end(), is_plain);
}

using C = EngineConfig;
using G = ConfigGroup;
constexpr std::array kFields = {
    // ---- models
    ConfigField{.name = "model",
                .group = G::models,
                .member = &C::model,
                .help = "Model directory or hub id; may be given several times",
                .metavar = "MODEL",
                .zero_means = "none",
                .is_path = true,
                .on_command_line = false},
    ConfigField{.name = "served_model_name",
                .group = G::models,
                .member = &C::served_model_name,
                .help = "Name in the API; one model may have several",
                .metavar = "NAME",
                .zero_means = "the model's own name",
                .common = true},
    ConfigField{.name = "max_model_len",
                .group = G::models,
                .member = &C::max_model_len,
                .help = "Longest prompt and output in tokens",
                .metavar = "N",
                .min = 1,
                .max = kMaxTokens,
                .unset_word = "auto",
                .common = true,
                .per_model = true},
    ConfigField{.name = "dtype",
                .group = G::models,
                .member = &C::dtype,
                .help = "auto, bf16, f16 or f32; auto: as the model says",
                .metavar = "TYPE",
                .choices = kDTypes,
                .common = true,
                .per_model = true},
    ConfigField{.name = "kv_cache_dtype",
                .group = G::models,
                .member = &C::kv_cache_dtype,
                .help = "Type of the KV cache; auto: the type of computation",
                .metavar = "TYPE",
                .choices = kDTypes,
                .per_model = true},
    ConfigField{.name = "chat_template",
                .group = G::models,
                .member = &C::chat_template,
                .help = "Jinja file instead of the model's own",
                .metavar = "FILE",
                .zero_means = "the model's own",
                .is_path = true,
                .common = true,
                .per_model = true},
    ConfigField{.name = "model_roots",
                .group = G::models,
                .member = &C::model_roots,
                .help = "Folder below which models may be opened, besides those named",
                .metavar = "DIR",
                .zero_means = "only the models named",
                .is_path = true},
    ConfigField{.name = "home",
                .group = G::models,
                .member = &C::home,
                .help = "Folder for Inferneo's own files, such as packed weights",
                .metavar = "DIR",
                .zero_means = "XDG_DATA_HOME/inferneo, else ~/.local/share/inferneo",
                .is_path = true},
    ConfigField{.name = "registry",
                .group = G::models,
                .member = &C::registry,
                .help = "File in which a server keeps its registered models; memory: none",
                .metavar = "FILE",
                .zero_means = "registry.db in home",
                .is_path = true},
    ConfigField{.name = "max_models",
                .group = G::models,
                .member = &C::max_models,
                .help = "Most models in memory at once",
                .metavar = "N",
                .max = 10000,
                .zero_means = "no limit but memory"},
    ConfigField{.name = "enable_lazy_loading",
                .group = G::models,
                .member = &C::enable_lazy_loading,
                .help = "Load a model at its first request instead of at the start"},
    ConfigField{.name = "keep_alive",
                .group = G::models,
                .member = &C::keep_alive,
                .help = "With lazy loading: seconds that a model stays without requests",
                .metavar = "SEC",
                .max = kMaxSeconds,
                .zero_means = "for ever"},
    // ---- hub
    ConfigField{.name = "hub_cache",
                .group = G::hub,
                .member = &C::hub_cache,
                .help = "Cache of the hub, where ids are looked up",
                .metavar = "DIR",
                .zero_means = "HF_HUB_CACHE, HF_HOME/hub, else ~/.cache/huggingface/hub",
                .is_path = true,
                .common = true},
    ConfigField{.name = "hub_endpoint",
                .group = G::hub,
                .member = &C::hub_endpoint,
                .help = "Where the hub answers, for mirrors",
                .metavar = "URL",
                .common = true,
                .env_alias = "HF_ENDPOINT"},
    ConfigField{.name = "hub_token",
                .group = G::hub,
                .member = &C::hub_token,
                .help = "Token for gated and private models; or HF_TOKEN",
                .metavar = "KEY",
                .zero_means = "what hub_token_file holds",
                .common = true,
                .secret = true,
                .env_alias = "HF_TOKEN"},
    ConfigField{.name = "hub_token_file",
                .group = G::hub,
                .member = &C::hub_token_file,
                .help = "File that holds the token",
                .metavar = "FILE",
                .zero_means = "HF_TOKEN_PATH, HF_HOME/token, else ~/.cache/huggingface/token",
                .is_path = true},
    ConfigField{.name = "hub_offline",
                .group = G::hub,
                .member = &C::hub_offline,
                .help = "Never ask the hub; use what is in its cache",
                .env_alias = "HF_HUB_OFFLINE"},
    // ---- batching
    ConfigField{.name = "max_num_seqs",
                .group = G::batching,
                .member = &C::max_num_seqs,
                .help = "Most sequences computed in one step",
                .metavar = "N",
                .min = 1,
                .max = 65536,
                .common = true,
                .per_model = true},
    ConfigField{.name = "max_num_batched_tokens",
                .group = G::batching,
                .member = &C::max_num_batched_tokens,
                .help = "Most tokens computed in one step",
                .metavar = "N",
                .min = 1,
                .max = kMaxTokens,
                .common = true,
                .per_model = true},
    ConfigField{.name = "max_queue_requests",
                .group = G::batching,
                .member = &C::max_queue_requests,
                .help = "Waiting requests before new ones get 429",
                .metavar = "N",
                .min = 1,
                .max = 1e6,
                .per_model = true},
    ConfigField{.name = "max_queue_tokens",
                .group = G::batching,
                .member = &C::max_queue_tokens,
                .help = "Waiting prompt tokens before new requests get 429",
                .metavar = "N",
                .min = 1,
                .max = 1e12,
                .per_model = true},
    ConfigField{.name = "request_timeout",
                .group = G::batching,
                .member = &C::request_timeout,
                .help = "Seconds after which a request is ended",
                .metavar = "SEC",
                .max = kMaxSeconds,
                .zero_means = "never"},
    ConfigField{.name = "deterministic",
                .group = G::batching,
                .member = &C::deterministic,
                .help = "Same tokens whatever else is in the batch",
                .common = true},
    ConfigField{.name = "seed",
                .group = G::batching,
                .member = &C::seed,
                .help = "Seed of requests that bring none; random: drawn for each",
                .metavar = "N",
                .max = 18446744073709551615.0,
                .unset_word = "random"},
    // ---- KV cache
    ConfigField{.name = "block_size",
                .group = G::kv_cache,
                .member = &C::block_size,
                .help = "Tokens of a KV block",
                .metavar = "N",
                .min = 1,
                .max = 1024,
                .check = is_power_of_two,
                .expected = "a power of two",
                .per_model = true},
    ConfigField{.name = "enable_prefix_caching",
                .group = G::kv_cache,
                .member = &C::enable_prefix_caching,
                .help = "Reuse the KV of equal prompt beginnings",
                .common = true,
                .per_model = true},
    ConfigField{.name = "enable_paged_attention",
                .group = G::kv_cache,
                .member = &C::enable_paged_attention,
                .help = "Page the KV cache; off: one block a sequence, no prefix cache",
                .per_model = true},
    ConfigField{.name = "kv_cache_gb",
                .group = G::kv_cache,
                .member = &C::kv_cache_gb,
                .help = "GiB of KV cache over all models",
                .metavar = "GIB",
                .max = kMaxGb,
                .zero_means = "what the weights leave of max_memory_gb",
                .common = true},
    // ---- device
    ConfigField{.name = "device",
                .group = G::device,
                .member = &C::device,
                .help = "auto, cpu, cuda or cuda:N",
                .metavar = "DEVICE",
                .check = is_device,
                .expected = "auto, cpu, cuda or cuda:N",
                .common = true,
                .per_model = true},
    ConfigField{.name = "isa",
                .group = G::device,
                .member = &C::isa,
                .help = "Instruction set of the CPU kernels; auto: the best there is",
                .metavar = "NAME",
                .per_model = true},
    ConfigField{.name = "num_threads",
                .group = G::device,
                .member = &C::num_threads,
                .help = "Compute threads",
                .metavar = "N",
                .max = 4096,
                .zero_means = "the CPU quota",
                .common = true},
    ConfigField{.name = "max_memory_gb",
                .group = G::device,
                .member = &C::max_memory_gb,
                .help = "GiB for weights, KV cache and work space",
                .metavar = "GIB",
                .max = kMaxGb,
                .zero_means = "0.8 of the memory limit",
                .common = true},
    ConfigField{.name = "gpu_memory_utilization",
                .group = G::device,
                .member = &C::gpu_memory_utilization,
                .help = "Share of a GPU's memory to use",
                .metavar = "SHARE",
                .min = 0.01,
                .max = 1.0,
                .env_alias = "INFERNEO_GPU_MEMORY_UTIL",
                .notice = "gpu_memory_utilization has no effect yet: this build has no GPU runner"},
    ConfigField{.name = "enable_cuda_graph",
                .group = G::device,
                .member = &C::enable_cuda_graph,
                .help = "Replay decode steps as CUDA graphs",
                .notice = "enable_cuda_graph has no effect yet: this build has no GPU runner"},
    ConfigField{.name = "enable_speculative_decoding",
                .group = G::device,
                .member = &C::enable_speculative_decoding,
                .help = "Let a draft propose tokens that the model verifies",
                .notice = "enable_speculative_decoding has no effect yet: tokens are decoded one by one"},
    // ---- server
    ConfigField{.name = "host",
                .group = G::server,
                .member = &C::host,
                .help = "Address; a public one needs an API key",
                .metavar = "ADDR",
                .common = true},
    ConfigField{.name = "port",
                .group = G::server,
                .member = &C::port,
                .help = "Port to listen on; 0: any free one",
                .metavar = "PORT",
                .max = 65535,
                .common = true},
    ConfigField{.name = "api_key",
                .group = G::server,
                .member = &C::api_key,
                .help = "Key that clients must send; may be repeated",
                .metavar = "KEY",
                .zero_means = "none",
                .check = is_key,
                .expected = "visible ASCII characters without spaces",
                .common = true,
                .secret = true},
    ConfigField{.name = "admin_key",
                .group = G::server,
                .member = &C::admin_key,
                .help = "Key of the admin routes; none: loopback only",
                .metavar = "KEY",
                .zero_means = "none",
                .check = is_key,
                .expected = "visible ASCII characters without spaces",
                .common = true,
                .secret = true},
    ConfigField{.name = "tls_cert",
                .group = G::server,
                .member = &C::tls_cert,
                .help = "Certificate chain in PEM; turns HTTPS on",
                .metavar = "FILE",
                .zero_means = "none",
                .is_path = true,
                .common = true},
    ConfigField{.name = "tls_key",
                .group = G::server,
                .member = &C::tls_key,
                .help = "Private key of the certificate in PEM",
                .metavar = "FILE",
                .zero_means = "none",
                .is_path = true,
                .common = true},
    ConfigField{.name = "insecure",
                .group = G::server,
                .member = &C::insecure,
                .help = "Allow a public address without an API key"},
    ConfigField{.name = "io_threads",
                .group = G::server,
                .member = &C::io_threads,
                .help = "Threads for HTTP",
                .metavar = "N",
                .max = 1024,
                .zero_means = "one per core, at most 4"},
    ConfigField{.name = "max_body_mb",
                .group = G::server,
                .member = &C::max_body_mb,
                .help = "Largest request body in MiB, after decompression",
                .metavar = "MIB",
                .min = 0.001,
                .max = 1024},
    ConfigField{.name = "allowed_origins",
                .group = G::server,
                .member = &C::allowed_origins,
                .help = "Origin of web pages that may call the API; *: any",
                .metavar = "ORIGIN",
                .zero_means = "none",
                .check = is_origin,
                .expected = "*, or scheme://host[:port] in lower case and without a path"},
    ConfigField{.name = "metrics_public",
                .group = G::server,
                .member = &C::metrics_public,
                .help = "Serve /metrics without a key"},
    ConfigField{.name = "drain_timeout",
                .group = G::server,
                .member = &C::drain_timeout,
                .help = "Seconds that running requests get at shutdown",
                .metavar = "SEC",
                .max = kMaxSeconds},
    // ---- logging
    ConfigField{.name = "log_level",
                .group = G::logging,
                .member = &C::log_level,
                .help = "debug, info, warning, error or off",
                .metavar = "LEVEL",
                .choices = kLogLevels,
                .common = true},
    ConfigField{.name = "quiet", .group = G::logging, .member = &C::quiet, .help = "No progress lines"},
};

}  // namespace

std::span<const ConfigField> config_fields() { return kFields; }

const ConfigField* find_config_field(std::string_view name) {
  const auto* row = std::find_if(kFields.begin(), kFields.end(), [&](const auto& field) { return field.name == name; });
  return row == kFields.end() ? nullptr : row;
}

std::string_view config_group_title(ConfigGroup group) {
  switch (group) {
    case ConfigGroup::models:
      return "Models";
    case ConfigGroup::hub:
      return "Hub";
    case ConfigGroup::batching:
      return "Batching and sampling";
    case ConfigGroup::kv_cache:
      return "KV cache";
    case ConfigGroup::device:
      return "Device and memory";
    case ConfigGroup::server:
      return "Server";
    case ConfigGroup::logging:
      return "Logging";
  }
  return "";
}

}  // namespace inferneo
