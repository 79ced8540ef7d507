#include "server/cors.h"

#include <algorithm>
#include <utility>

namespace inferneo {
namespace {

// What pages may read beside the usual fields.
constexpr const char* kExposed =
    "x-request-id, Retry-After, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";

}  // namespace

Cors::Cors(std::vector<std::string> allowed_origins)
    : allowed_origins_(std::move(allowed_origins)),
      any_(std::find(allowed_origins_.begin(), allowed_origins_.end(), "*") != allowed_origins_.end()) {}

bool Cors::allows(std::string_view origin) const {
  return any_ || std::find(allowed_origins_.begin(), allowed_origins_.end(), origin) != allowed_origins_.end();
}

HeaderList Cors::headers(const HttpHead& request) const {
  HeaderList fields;
  if (allowed_origins_.empty()) return fields;
  const std::string* origin = request.header("origin");
  // A cache must not give one origin's answer to another; with "*" all get the same.
  if (!any_) fields.emplace_back("Vary", "Origin");
  if (!any_ && (origin == nullptr || !allows(*origin))) return fields;
  fields.emplace_back("Access-Control-Allow-Origin", any_ ? "*" : *origin);
  fields.emplace_back("Access-Control-Expose-Headers", kExposed);
  return fields;
}

std::optional<HttpResponse> Cors::preflight(const HttpHead& request) const {
  const std::string* origin = request.header("origin");
  if (request.method != Method::options || origin == nullptr || !allows(*origin) ||
      request.header("access-control-request-method") == nullptr) {
    return std::nullopt;
  }
  HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  // The same for every path: who has no key does not learn which routes there are.
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
  // Clients send fields of their own (x-stainless-...), and "*" would not stand for Authorization.
  if (const std::string* wanted = request.header("access-control-request-headers")) {
    response.headers.emplace_back("Access-Control-Allow-Headers", *wanted);
  }
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

}  // namespace inferneo
