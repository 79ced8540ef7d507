#include "server/otlp/collector.h"

#include <algorithm>
#include <utility>

#include "formats/hub_http.h"
#include "server/http_message.h"

namespace inferneo {
namespace {

constexpr std::string_view kTracesPath = "/v1/traces";

// "name=a%20value": as "name: a value".
Result<std::string> header_field(const std::string& entry) {
  const size_t equals = entry.find('=');
  const std::optional<std::string> value =
      equals == std::string::npos || equals == 0 ? std::nullopt : percent_decode(entry.substr(equals + 1));
  const bool fits =
      value && std::all_of(value->begin(), value->end(), [](char c) { return c == '\t' || (c >= ' ' && c != 0x7f); });
  if (!fits) {
    return make_error(ErrorCode::invalid_argument,
                      "otlp_headers: expected name=value, where a value's special characters are written as %XX",
                      "otlp_headers");
  }
  return entry.substr(0, equals) + ": " + *value;
}

}  // namespace

Result<std::optional<Collector>> collector_of(const EngineConfig& config) {
  Collector collector;
  const char* field = "otlp_traces_endpoint";
  collector.url = config.otlp_traces_endpoint;
  if (collector.url.empty()) {
    if (config.otlp_endpoint.empty()) return std::optional<Collector>();
    field = "otlp_endpoint";
    collector.url = config.otlp_endpoint;
    while (collector.url.ends_with('/')) collector.url.pop_back();
    collector.url += kTracesPath;
  }
  if (const auto origin = hub::origin_of(collector.url); !origin.ok()) {
    return make_error(ErrorCode::invalid_argument, std::string(field) + ": " + origin.error().message, field);
  }
  for (const std::string& entry : config.otlp_headers) {
    ASSIGN_OR_RETURN(std::string line, header_field(entry));
    collector.fields.push_back(std::move(line));
  }
  return std::optional<Collector>(std::move(collector));
}

}  // namespace inferneo
