#include "server/route_table.h"

#include <utility>

namespace inferneo {
namespace {

constexpr std::string_view kParameter = "{id}";

bool path_matches(std::string_view pattern, std::string_view path, std::string_view& param) {
  const size_t at = pattern.find(kParameter);
  if (at == std::string_view::npos) return pattern == path;
  const std::string_view before = pattern.substr(0, at);
  const std::string_view after = pattern.substr(at + kParameter.size());
  if (path.size() <= before.size() + after.size() || !path.starts_with(before) || !path.ends_with(after)) return false;
  param = path.substr(before.size(), path.size() - before.size() - after.size());
  return true;
}

// How much of a path a pattern spells out; a path without a parameter is the most specific of all.
size_t specificity(std::string_view pattern) {
  const bool whole = pattern.find(kParameter) == std::string_view::npos;
  return whole ? std::string_view::npos : pattern.size();
}

void allow(std::string& methods, Method method) {
  if (!methods.empty()) methods += ", ";
  methods += method_name(method);
  if (method == Method::get) methods += ", HEAD";
}

}  // namespace

RouteTable::RouteTable(std::vector<Route> routes) : routes_(std::move(routes)) {}

RouteMatch RouteTable::match(Method method, std::string_view path) const {
  RouteMatch match;
  std::string allowed;
  size_t best = 0;
  for (const Route& route : routes_) {
    std::string_view param;
    if (!path_matches(route.path, path, param) || specificity(route.path) < best) continue;
    if (specificity(route.path) > best) {
      best = specificity(route.path);
      match = {};
      allowed.clear();
    }
    allow(allowed, route.method);
    const bool fits = route.method == method || (route.method == Method::get && method == Method::head);
    if (!fits || match.route != nullptr) continue;
    match.route = &route;
    match.param = param;
  }
  if (match.route == nullptr) match.allowed_methods = std::move(allowed);
  return match;
}

}  // namespace inferneo
