// What the commands about models do it to: the running server where there is one, else the registry's file.
//
// Both answer in the words of the admin routes, so that what follows need not know which it was. A file is opened, and
// locked, for each call alone.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/config/load.h"
#include "cli/admin_client.h"
#include "cli/command.h"
#include "manager/manager_core.h"

namespace inferneo {

class ModelAdmin {
 public:
  virtual ~ModelAdmin() = default;

  // The server, for what only one can do; null where the file alone is there.
  virtual const AdminClient* server() const { return nullptr; }
  // "the server at http://..." or "the registry /...; no server runs".
  virtual std::string where() const = 0;

  // Each: the answer of the route of that name. Errors: AdminClient's; the registry's.
  virtual Result<AdminAnswer> list() = 0;
  virtual Result<AdminAnswer> add(const ModelRegistration& registration) = 0;
  virtual Result<AdminAnswer> show(const std::string& id) = 0;
  virtual Result<AdminAnswer> amend(const std::string& id, const ModelAmendment& amendment) = 0;
  virtual Result<AdminAnswer> remove(const std::string& id, double timeout) = 0;
  virtual Result<AdminAnswer> set_pinned(const std::string& id, bool pinned) = 0;
  virtual Result<AdminAnswer> set_keep_alive(const std::string& id, std::optional<int64_t> seconds) = 0;
  virtual Result<AdminAnswer> set_alias(const std::string& alias, const std::string& target) = 0;
  virtual Result<AdminAnswer> remove_alias(const std::string& alias) = 0;

  struct Switch {
    enum class To : uint8_t { version, latest, previous } to = To::version;
    std::string version = {};
  };
  // A server may answer with an operation (status 202).
  virtual Result<AdminAnswer> switch_version(const std::string& name, const Switch& wanted) = 0;
};

// --url, INFERNEO_URL, the process that holds the registry, the file. unavailable when a process holds the registry and
// no server of it can be found.
Result<std::unique_ptr<ModelAdmin>> find_model_admin(const Invocation& invocation, const LoadedConfig& loaded,
                                                     const CommandContext& context);

// On the registry of the configuration.
std::unique_ptr<ModelAdmin> make_file_admin(const EngineConfig& config);

}  // namespace inferneo
