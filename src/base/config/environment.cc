#include "base/config/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX asks the program to declare it

namespace inferneo {
namespace {

constexpr std::array<std::string_view, 3> kProtocols = {"TCP", "UDP", "SCTP"};

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "..._PORT_8000_TCP", with _ADDR, _PORT or _PROTO after it.
bool is_injected_port_name(std::string_view name) {
  for (const std::string_view suffix : {"_ADDR", "_PORT", "_PROTO"}) {
    if (name.ends_with(suffix)) {
      name.remove_suffix(suffix.size());
      break;
    }
  }
  const size_t protocol = name.rfind('_');
  if (protocol == std::string_view::npos) return false;
  if (std::find(kProtocols.begin(), kProtocols.end(), name.substr(protocol + 1)) == kProtocols.end()) return false;
  name = name.substr(0, protocol);
  const size_t number = name.rfind('_');
  return number != std::string_view::npos && is_digits(name.substr(number + 1)) &&
         name.substr(0, number).ends_with("_PORT");
}

}  // namespace

Environment Environment::of_process() {
  Variables variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos || equals == 0) continue;
    variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return Environment(std::move(variables));
}

std::optional<std::string> Environment::get(std::string_view name) const {
  const auto found = variables_.find(name);
  if (found == variables_.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

std::string Environment::expand_home(const std::string& path) const {
  if (path != "~" && !path.starts_with("~/")) return path;
  const auto home = get("HOME");
  return home ? *home + path.substr(1) : path;
}

std::string Environment::hub_home() const {
  if (const auto home = get("HF_HOME")) return expand_home(*home);
  if (const auto cache = get("XDG_CACHE_HOME")) return expand_home(*cache) + "/huggingface";
  if (const auto home = get("HOME")) return *home + "/.cache/huggingface";
  return {};
}

std::string Environment::hub_cache() const {
  if (const auto cache = get("HF_HUB_CACHE")) return expand_home(*cache);
  const std::string home = hub_home();
  return home.empty() ? home : home + "/hub";
}

std::string Environment::hub_token_file() const {
  if (const auto file = get("HF_TOKEN_PATH")) return expand_home(*file);
  const std::string home = hub_home();
  return home.empty() ? home : home + "/token";
}

std::string Environment::inferneo_home() const {
  if (const auto data = get("XDG_DATA_HOME")) return expand_home(*data) + "/inferneo";
  if (const auto home = get("HOME")) return *home + "/.local/share/inferneo";
  return {};
}

bool is_injected_variable(std::string_view name, std::string_view value) {
  for (const std::string_view scheme : {"tcp://", "udp://", "sctp://"}) {
    if (value.starts_with(scheme)) return true;
  }
  if (name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT")) return true;
  if (name.find("_SERVICE_PORT_") != std::string_view::npos) return true;
  return is_injected_port_name(name);
}

}  // namespace inferneo
