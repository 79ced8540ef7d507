#include "cli/model_admin.h"

#include <fmt/format.h>

#include <array>
#include <thread>
#include <utility>

#include "app/registry_path.h"
#include "manager/registry.h"

namespace inferneo {
namespace {

using OrderedJson = nlohmann::ordered_json;

// A server that starts holds the registry before it has an address; another command holds it for an instant.
constexpr int kAttempts = 8;
constexpr auto kPause = std::chrono::milliseconds(75);

OrderedJson body_of(const ModelRegistration& registration) {
  OrderedJson body;
  const size_t colon = registration.name.find(':');
  body["name"] = registration.name.substr(0, colon);
  if (colon != std::string::npos) body["version"] = registration.name.substr(colon + 1);
  body["source"] = registration.path;
  if (!registration.revision.empty()) body["revision"] = registration.revision;
  if (registration.format) body["format"] = std::string(model_format_name(*registration.format));
  if (!registration.aliases.empty()) body["aliases"] = registration.aliases;
  if (!registration.settings.empty()) body["settings"] = registration.settings;
  if (!registration.metadata.empty()) body["metadata"] = registration.metadata;
  if (registration.pinned) body["pinned"] = true;
  if (registration.keep_alive) body["keep_alive"] = *registration.keep_alive;
  return body;
}

OrderedJson body_of(const ModelAmendment& amendment) {
  OrderedJson body = OrderedJson::object();
  for (const auto& [field, values] :
       {std::pair("settings", &amendment.settings), std::pair("metadata", &amendment.metadata)}) {
    for (const auto& [name, value] : *values) body[field][name] = value ? OrderedJson(*value) : OrderedJson(nullptr);
  }
  if (amendment.pinned) body["pinned"] = *amendment.pinned;
  if (amendment.keep_alive)
    body["keep_alive"] = *amendment.keep_alive ? OrderedJson(**amendment.keep_alive) : OrderedJson(nullptr);
  return body;
}

// What the user wrote may be no UTF-8; JSON must be.
std::string text_of(const OrderedJson& body) {
  return body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

class ServerAdmin final : public ModelAdmin {
 public:
  explicit ServerAdmin(AdminClient client) : client_(std::move(client)) {}

  const AdminClient* server() const override { return &client_; }
  std::string where() const override { return "the server at " + client_.url(); }

  Result<AdminAnswer> list() override { return client_.call("GET", "/admin/models"); }
  Result<AdminAnswer> add(const ModelRegistration& registration) override {
    return client_.call("POST", "/admin/models", text_of(body_of(registration)));
  }
  Result<AdminAnswer> show(const std::string& id) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(id));
    return client_.call("GET", "/admin/models/" + path);
  }
  Result<AdminAnswer> amend(const std::string& id, const ModelAmendment& amendment) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(id));
    return client_.call("PATCH", "/admin/models/" + path, text_of(body_of(amendment)));
  }
  Result<AdminAnswer> remove(const std::string& id, double timeout) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(id));
    return client_.call("DELETE", fmt::format("/admin/models/{}?timeout={}", path, timeout));
  }
  Result<AdminAnswer> set_pinned(const std::string& id, bool pinned) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(id));
    return client_.call("POST", fmt::format("/admin/models/{}/{}", path, pinned ? "pin" : "unpin"));
  }
  Result<AdminAnswer> set_keep_alive(const std::string& id, std::optional<int64_t> seconds) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(id));
    const std::string value = seconds ? fmt::format("{}", *seconds) : "null";
    return client_.call("PUT", fmt::format("/admin/models/{}/keep-alive", path),
                        fmt::format("{{\"keep_alive\":{}}}", value));
  }
  Result<AdminAnswer> set_alias(const std::string& alias, const std::string& target) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(alias));
    return client_.call("PUT", "/admin/aliases/" + path, text_of(OrderedJson{{"target", target}}));
  }
  Result<AdminAnswer> remove_alias(const std::string& alias) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(alias));
    return client_.call("DELETE", "/admin/aliases/" + path);
  }
  Result<AdminAnswer> switch_version(const std::string& name, const Switch& wanted) override {
    ASSIGN_OR_RETURN(const std::string path, model_path(name));
    OrderedJson body;
    if (wanted.to == Switch::To::previous) {
      body["rollback"] = true;
    } else if (wanted.to == Switch::To::latest) {
      body["version"] = nullptr;
    } else {
      body["version"] = wanted.version;
    }
    return client_.call("PUT", fmt::format("/admin/models/{}/active-version", path), text_of(body));
  }

 private:
  AdminClient client_;
};

Result<std::unique_ptr<ModelAdmin>> server_at(const std::string& url, const LoadedConfig& loaded,
                                              std::string found_by) {
  AdminClient::Options options;
  if (!loaded.config.admin_key.empty()) options.key = loaded.config.admin_key.front();
  options.found_by = std::move(found_by);
  ASSIGN_OR_RETURN(AdminClient client, AdminClient::create(url, std::move(options)));
  return std::unique_ptr<ModelAdmin>(std::make_unique<ServerAdmin>(std::move(client)));
}

// Where a server that listens everywhere can be reached from its own machine.
std::string reachable(std::string address) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kEverywhere = {
      {{"://0.0.0.0:", "://127.0.0.1:"}, {"://[::]:", "://[::1]:"}}};
  for (const auto& [listens, reached] : kEverywhere) {
    if (const size_t at = address.find(listens); at != std::string::npos) address.replace(at, listens.size(), reached);
  }
  return address;
}

Error held_without_address(const std::string& path, const RegistryHolder& holder) {
  const std::string who = holder.pid == 0 ? "another process" : fmt::format("process {}", holder.pid);
  return make_error(ErrorCode::unavailable,
                    fmt::format("{} holds the registry {} and has no server address yet; a server that is loading its "
                                "models has one once it is ready. Try again, or name the server with --url",
                                who, path));
}

}  // namespace

Result<std::unique_ptr<ModelAdmin>> find_model_admin(const Invocation& invocation, const LoadedConfig& loaded,
                                                     const CommandContext& context) {
  if (const auto url = invocation.last("--url")) return server_at(*url, loaded, {});
  if (const auto url = context.environment.get(kUrlVariable)) {
    return server_at(*url, loaded, fmt::format("the address is from {}", kUrlVariable));
  }
  const std::string path = registry_path(loaded.config);
  if (path.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "there is no registry file: its setting says memory, or there is no HOME; name a running server "
                      "with --url, or a file with --registry");
  }
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<RegistryHolder> holder, Registry::read_holder(path));
    if (!holder) return make_file_admin(loaded.config);
    if (!holder->address.empty()) {
      return server_at(reachable(holder->address), loaded,
                       fmt::format("process {}, which holds the registry {}, gave that address; if it hangs, end it, "
                                   "else name the server with --url",
                                   holder->pid, path));
    }
    if (attempt == kAttempts) return held_without_address(path, *holder);
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace inferneo
