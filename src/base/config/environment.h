// A snapshot of the environment. Environment::of_process() is the only reader of the process's environment in the
// project; everything else gets its values from a configuration or from the snapshot it is handed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace inferneo {

class Environment {
 public:
  using Variables = std::map<std::string, std::string, std::less<>>;

  Environment() = default;  // empty
  explicit Environment(Variables variables) : variables_(std::move(variables)) {}
  static Environment of_process();

  // nullopt when unset or empty: an empty variable counts as unset everywhere.
  std::optional<std::string> get(std::string_view name) const;
  const Variables& all() const { return variables_; }

  // Standard places, empty when neither the variables nor HOME say where.
  std::string hub_cache() const;       // HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/...
  std::string hub_token_file() const;  // HF_TOKEN_PATH, HF_HOME/token, XDG_CACHE_HOME/huggingface/token, ~/.cache/...
  std::string inferneo_home() const;   // XDG_DATA_HOME/inferneo, ~/.local/share/inferneo
  std::string expand_home(const std::string& path) const;  // "~/x" -> HOME/x

 private:
  std::string hub_home() const;  // HF_HOME, XDG_CACHE_HOME/huggingface, ~/.cache/huggingface

  Variables variables_;
};

// True for what Kubernetes injects for a Service called "inferneo...": INFERNEO_PORT=tcp://10.0.0.1:8000,
// INFERNEO_PORT_8000_TCP_ADDR, INFERNEO_SERVICE_HOST. Such variables are nobody's wish and are passed over.
bool is_injected_variable(std::string_view name, std::string_view value);

}  // namespace inferneo
