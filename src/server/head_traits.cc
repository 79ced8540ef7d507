#include "server/head_traits.h"

#include <algorithm>
#include <array>
#include <string>

namespace inferneo {
namespace {

// Of no use to a rule, and nothing that should lie about in memory twice.
constexpr std::array<std::string_view, 5> kSecrets = {"authorization", "cookie", "proxy-authorization", "x-api-key",
                                                      "api-key"};

std::string value_of(const HttpHead& head, std::string_view name) {
  const std::string* const value = head.header(name);
  return value == nullptr ? std::string() : *value;
}

}  // namespace

void add_head_traits(const HttpHead& head, RequestTraits& traits) {
  for (const auto& [name, value] : head.headers) {
    if (std::ranges::find(kSecrets, name) == kSecrets.end()) traits.headers.emplace_back(name, value);
  }
  traits.session = value_of(head, "x-session-id");
  traits.key = value_of(head, "x-request-key");
  traits.forced_arm = value_of(head, "x-inferneo-arm");
}

}  // namespace inferneo
