#include <fmt/format.h>

#include <algorithm>

#include "base/config/key_entries.h"
#include "base/config/load.h"

namespace inferneo {
namespace {

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

Error invalid(std::string_view field, std::string message) {
  return make_error(ErrorCode::invalid_argument, fmt::format("{}: {}", field, message), std::string(field));
}

// Where traces go: refused here, before anything is loaded. Never quoted: an address may hold a key.
Status check_address(std::string_view field, std::string_view address) {
  if (address.empty()) return ok_status();
  const bool plain = address.starts_with("http://");
  const bool printable = std::all_of(address.begin(), address.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if ((!plain && !address.starts_with("https://")) || !printable) {
    return invalid(field, "expected an address of the form http://host:port or https://host:port");
  }
  const std::string_view rest = address.substr(plain ? 7 : 8);
  const std::string_view host = rest.substr(0, rest.find_first_of("/?#"));
  if (host.empty()) return invalid(field, "expected a host after http:// or https://");
  if (host.find('@') != std::string_view::npos) {
    return invalid(field, "an address may hold neither a user name nor a password; otlp_headers may");
  }
  if (rest.find_first_of("?#") != std::string_view::npos) return invalid(field, "expected an address without ? and #");
  return ok_status();
}

}  // namespace

Status validate_config(const EngineConfig& config) {
  EngineConfig scratch;
  for (const ConfigField& field : config_fields()) {
    if (Status status = set_field(scratch, field, field_values(config, field)); !status.ok()) {
      return invalid(field.name, status.error().message);
    }
  }
  const size_t models = config.model.size();
  const size_t names = config.served_model_name.size();
  if (models > 1 && names > 0 && names != models) {
    return invalid("served_model_name", fmt::format("{} names for {} models; give one for each", names, models));
  }
  const size_t configured = models + config.models.size();
  if (!config.enable_lazy_loading && config.max_models > 0 && configured > static_cast<size_t>(config.max_models)) {
    return invalid(
        "max_models",
        fmt::format("{} models are named, and at most {} may be loaded; enable_lazy_loading lets them take turns",
                    configured, config.max_models));
  }
  if (config.tensor_parallel_size > 1 && config.device == "cpu") {
    return invalid("tensor_parallel_size",
                   fmt::format("{} GPUs are to share a model whose device is cpu; leave it at 1, or name a GPU",
                               config.tensor_parallel_size));
  }
  if (config.quantization == "fp8" && config.device == "cpu") {
    return invalid("quantization", "fp8 needs device cuda, and device is cpu; int8 is computed there too");
  }
  return check_key_limits(config);
}

Status validate_server_config(const EngineConfig& config) {
  if (config.host.empty()) return invalid("host", "expected an address to listen on");
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    return invalid(config.tls_cert.empty() ? "tls_cert" : "tls_key", "tls_cert and tls_key are given together");
  }
  RETURN_IF_ERROR(check_address("otlp_endpoint", config.otlp_endpoint));
  RETURN_IF_ERROR(check_address("otlp_traces_endpoint", config.otlp_traces_endpoint));
  if (!is_loopback(config.host) && config.api_key.empty() && config.key_limits.empty() && !config.insecure) {
    return make_error(ErrorCode::refused,
                      fmt::format("host: {} can be reached from other machines and no API key is set; give --api-key "
                                  "(or INFERNEO_API_KEY), or --insecure to serve everyone",
                                  config.host),
                      "host");
  }
  return ok_status();
}

}  // namespace inferneo
