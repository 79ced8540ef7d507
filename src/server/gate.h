// What every request passes before its body is read: keys, browser safety, existence of the route, media types.
//
// Pure and immutable: a head and a peer in; a route, an error or the answer to a preflight out.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "server/cors.h"
#include "server/http_message.h"
#include "server/route_table.h"
#include "server/server_config.h"

namespace inferneo {

bool is_loopback_host(std::string_view host);  // localhost, 127.0.0.0/8, ::1; with or without brackets, no port

// SHA-256 of a key. Keys are compared by it: in constant time, and whether the configuration holds the key or its
// digest.
using KeyDigest = std::array<unsigned char, 32>;
KeyDigest digest_of_key(std::string_view key);
std::optional<KeyDigest> parse_key_digest(std::string_view hexadecimal);

class Gate {
 public:
  Gate(const ServerConfig& config, const RouteTable& routes);

  struct Admitted {
    const Route* route = nullptr;
    std::string path_param;
    TenantId tenant = kDefaultTenant;  // whose key it was
  };
  struct Refused {
    HttpError error;
    std::string allow;  // for 405
  };
  using Preflight = HttpResponse;  // a browser asks what it may send
  std::variant<Admitted, Refused, Preflight> admit(const HttpHead& head, bool peer_is_loopback) const;

  const Cors& cors() const { return cors_; }

 private:
  // `tenant`: whose key it was, when one was asked for.
  std::optional<HttpError> check_keys(const HttpHead& head, AuthPolicy policy, bool peer_is_loopback,
                                      TenantId& tenant) const;
  std::optional<HttpError> check_browser(const HttpHead& head, AuthPolicy policy) const;

  std::vector<KeyDigest> api_keys_;  // by tenant, from 1
  std::vector<KeyDigest> admin_keys_;
  bool metrics_need_key_;
  bool bound_to_loopback_;
  std::string bound_host_;
  size_t max_body_bytes_;
  Cors cors_;
  const RouteTable& routes_;
};

}  // namespace inferneo
