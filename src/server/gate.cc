#include "server/gate.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/ascii.h"

namespace inferneo {
namespace {

// "host", "host:port", "[v6]:port" to the host, brackets kept off.
std::string host_without_port(std::string_view authority) {
  if (authority.starts_with('[')) return std::string(authority.substr(1, authority.find(']') - 1));
  const size_t colon = authority.find(':');
  // More than one colon and no brackets: a bare IPv6 address.
  if (colon != std::string_view::npos && authority.find(':', colon + 1) != std::string_view::npos) {
    return std::string(authority);
  }
  return std::string(authority.substr(0, colon));
}

std::vector<KeyDigest> digests_of(const std::vector<std::string>& keys) {
  std::vector<KeyDigest> digests;
  digests.reserve(keys.size());
  for (const std::string& key : keys) digests.push_back(digest_of_key(key));
  return digests;
}

// Which of the keys it is, from 1; 0: none. Looks at all of them whatever it finds, so that its time tells nothing.
TenantId key_number(const std::vector<KeyDigest>& keys, const KeyDigest& guess) {
  TenantId found = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (CRYPTO_memcmp(keys[i].data(), guess.data(), guess.size()) == 0) found = static_cast<TenantId>(i + 1);
  }
  return found;
}

// The token of a single, well-formed `Authorization: Bearer` field.
std::optional<std::string_view> bearer_token(const HttpHead& head) {
  if (head.header_count("authorization") != 1) return std::nullopt;
  const std::string_view value = *head.header("authorization");
  if (value.size() < 8 || lower_case(value.substr(0, 7)) != "bearer ") return std::nullopt;
  return value.substr(7);
}

HttpError forbidden(std::string message) { return to_http_error(make_error(ErrorCode::forbidden, std::move(message))); }

std::optional<HttpError> check_media(const HttpHead& head, AuthPolicy policy) {
  if (head.method == Method::get || head.method == Method::head) return std::nullopt;
  // An operator's verbs come without a body, too; check_browser() keeps foreign pages from sending them.
  const bool has_body = head.chunked || head.content_length > 0;
  if (policy == AuthPolicy::admin_key && !has_body) return std::nullopt;
  const std::string* type = head.header("content-type");
  const std::string media = type == nullptr ? "" : lower_case(type->substr(0, type->find(';')));
  if (media.substr(0, media.find_last_not_of(" \t") + 1) != "application/json") {
    return bad_request(415, "unsupported_media_type", "Send the request with Content-Type: application/json.");
  }
  const std::string* encoding = head.header("content-encoding");
  if (encoding != nullptr && lower_case(*encoding) != "identity") {
    return bad_request(415, "unsupported_media_type",
                       "Content-Encoding is not understood here; send the body uncompressed.");
  }
  return std::nullopt;
}

}  // namespace

KeyDigest digest_of_key(std::string_view key) {
  KeyDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

std::optional<KeyDigest> parse_key_digest(std::string_view hexadecimal) {
  KeyDigest digest;
  if (hexadecimal.size() != 2 * digest.size()) return std::nullopt;
  for (size_t i = 0; i < digest.size(); ++i) {
    const int high = hex_digit(hexadecimal[2 * i]);
    const int low = hex_digit(hexadecimal[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest[i] = static_cast<unsigned char>(high * 16 + low);
  }
  return digest;
}

bool is_loopback_host(std::string_view host) {
  const std::string name = lower_case(host);
  if (name == "localhost" || name == "::1" || name == "[::1]") return true;
  // 127.a.b.c, and nothing that merely begins with it: 127.0.0.1.example.com is somebody else's.
  std::array<unsigned, 4> parts{};
  const char* at = name.data();
  const char* const end = name.data() + name.size();
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto [next, ec] = std::from_chars(at, end, parts[i]);
    if (ec != std::errc() || parts[i] > 255) return false;
    if (i + 1 == parts.size()) return next == end && parts[0] == 127;
    if (next == end || *next != '.') return false;
    at = next + 1;
  }
  return false;
}

Gate::Gate(const ServerConfig& config, const RouteTable& routes)
    : api_keys_(digests_of(config.api_keys)),
      admin_keys_(digests_of(config.admin_keys)),
      metrics_need_key_(config.metrics_need_key),
      bound_to_loopback_(is_loopback_host(config.host)),
      bound_host_(lower_case(config.host)),
      max_body_bytes_(config.limits.body_bytes),
      cors_(config.allowed_origins),
      routes_(routes) {
  for (const NamedKey& key : config.named_keys) {
    // A digest that is none matches nothing, and keeps its number; Server::start() refuses it.
    api_keys_.push_back(key.key.empty() ? parse_key_digest(key.sha256).value_or(KeyDigest{}) : digest_of_key(key.key));
  }
}

std::optional<HttpError> Gate::check_keys(const HttpHead& head, AuthPolicy policy, bool peer_is_loopback,
                                          TenantId& tenant) const {
  if (policy == AuthPolicy::open || (policy == AuthPolicy::metrics && !metrics_need_key_)) return std::nullopt;
  const bool admin = policy == AuthPolicy::admin_key;
  const std::vector<KeyDigest>& keys = admin ? admin_keys_ : api_keys_;
  if (keys.empty()) {
    if (!admin || peer_is_loopback) return std::nullopt;
    return forbidden("Without an admin key, admin routes answer on loopback only; start the server with --admin-key.");
  }
  const std::optional<std::string_view> token = bearer_token(head);
  const TenantId number = token ? key_number(keys, digest_of_key(*token)) : 0;
  if (number != 0) {
    if (!admin) tenant = number;
    return std::nullopt;
  }
  return to_http_error(
      make_error(ErrorCode::unauthorized, token ? "The key is not valid for this route."
                                                : "No key was given; send the header `Authorization: Bearer KEY`."));
}

std::optional<HttpError> Gate::check_browser(const HttpHead& head, AuthPolicy policy) const {
  // Loopback is what lets an operator without a key in, and a page in the operator's browser comes from there as well.
  const bool keyless_admin = policy == AuthPolicy::admin_key && admin_keys_.empty();
  if (!bound_to_loopback_ && !keyless_admin) return std::nullopt;
  if (const std::string* host = head.header("host")) {
    const std::string name = host_without_port(*host);
    if (!is_loopback_host(name) && lower_case(name) != bound_host_) {
      return forbidden("This answers on loopback only, and not to a foreign Host.");
    }
  }
  if (const std::string* origin = head.header("origin");
      origin != nullptr && (keyless_admin || !cors_.allows(*origin))) {
    const size_t scheme = origin->find("://");
    const std::string name = scheme == std::string::npos ? "" : host_without_port(origin->substr(scheme + 3));
    if (!is_loopback_host(name)) return forbidden("Requests from a foreign Origin are refused.");
  }
  return std::nullopt;
}

std::variant<Gate::Admitted, Gate::Refused, Gate::Preflight> Gate::admit(const HttpHead& head,
                                                                         bool peer_is_loopback) const {
  // Before the keys: browsers send none with a preflight.
  if (auto preflight = cors_.preflight(head); preflight && !check_browser(head, AuthPolicy::api_key)) {
    return std::move(*preflight);
  }
  const RouteMatch match = routes_.match(head.method, head.path);
  const AuthPolicy policy = match.route != nullptr ? match.route->policy : AuthPolicy::api_key;
  TenantId tenant = kDefaultTenant;
  if (auto error = check_keys(head, policy, peer_is_loopback, tenant)) return Refused{std::move(*error), {}};
  if (auto error = check_browser(head, policy)) return Refused{std::move(*error), {}};
  if (match.route == nullptr) {
    if (!match.allowed_methods.empty()) {
      return Refused{to_http_error(make_error(ErrorCode::method_not_allowed,
                                              "This path answers only to " + match.allowed_methods + ".")),
                     match.allowed_methods};
    }
    return Refused{to_http_error(make_error(ErrorCode::not_found, "There is no such route.")), {}};
  }
  if (auto error = check_media(head, policy)) return Refused{std::move(*error), {}};
  if (head.content_length > max_body_bytes_) {
    return Refused{
        bad_request(413, "payload_too_large", "The body is longer than " + std::to_string(max_body_bytes_) + " bytes."),
        {}};
  }
  std::optional<std::string> param = percent_decode(match.param);
  if (!param) return Refused{bad_request(400, "bad_request", "The path holds a broken percent escape."), {}};
  return Admitted{match.route, std::move(*param), tenant};
}

}  // namespace inferneo
