#include "server/route_table.h"

namespace inferneo {
namespace {

constexpr std::string_view kRest = "{id}";

bool path_matches(const Route& route, std::string_view path, std::string_view& param) {
  const std::string_view pattern = route.path;
  if (!pattern.ends_with(kRest)) return pattern == path;
  const std::string_view prefix = pattern.substr(0, pattern.size() - kRest.size());
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return false;
  param = path.substr(prefix.size());
  return true;
}

}  // namespace

RouteTable::RouteTable(std::vector<Route> routes) : routes_(std::move(routes)) {}

RouteMatch RouteTable::match(Method method, std::string_view path) const {
  RouteMatch match;
  for (const Route& route : routes_) {
    std::string_view param;
    if (!path_matches(route, path, param)) continue;
    if (route.method == method || (route.method == Method::get && method == Method::head)) {
      match.route = &route;
      match.param = param;
      match.allowed_methods.clear();
      return match;
    }
    if (!match.allowed_methods.empty()) match.allowed_methods += ", ";
    match.allowed_methods += method_name(route.method);
    if (route.method == Method::get) match.allowed_methods += ", HEAD";
  }
  return match;
}

}  // namespace inferneo
