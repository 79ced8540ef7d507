// Which handler answers what, and who may ask: one row per route. A row without a policy does not compile.
//
// Immutable after construction, thread-safe. Paths are compared byte for byte: `//`, `%2e` and the like match nothing,
// and what matches nothing is guarded like an API route. Where several patterns match, the one that spells out most of
// the path has it, with its methods alone: POST /admin/models/{id}/load is no matter of GET /admin/models/{id}.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/exchange.h"
#include "server/http_message.h"

namespace inferneo {

enum class AuthPolicy : uint8_t {
  open,     // answers anybody: /health, /ready, /version
  metrics,  // open or api_key, as configured
  api_key,
  admin_key,  // without configured admin keys: loopback peers only
};

// While the models are being loaded, or the server ends, only operators get an answer, and change nothing.
constexpr bool answers_while_starting(AuthPolicy policy, Method method) {
  const bool reads = method == Method::get || method == Method::head;
  return policy == AuthPolicy::open || policy == AuthPolicy::metrics || (policy == AuthPolicy::admin_key && reads);
}

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

struct Route {
  Route(Method route_method, std::string_view route_path, AuthPolicy route_policy, Handler route_handler)
      : method(route_method), path(route_path), policy(route_policy), handler(std::move(route_handler)) {}

  Method method;
  std::string path;  // `{id}`, once at most, stands for one or more bytes, slashes included
  AuthPolicy policy;
  Handler handler;
};

struct RouteMatch {
  const Route* route = nullptr;
  std::string_view param;       // still percent-encoded
  std::string allowed_methods;  // when only the method does not fit: the value of Allow
};

class RouteTable {
 public:
  explicit RouteTable(std::vector<Route> routes);
  RouteMatch match(Method method, std::string_view path) const;  // HEAD finds GET routes
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace inferneo
