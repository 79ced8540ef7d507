#include "cli/traffic_desk.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "app/model_loading.h"
#include "app/registry_path.h"
#include "app/registry_traffic_store.h"
#include "formats/hub_http.h"
#include "manager/catalog.h"
#include "manager/registry.h"
#include "server/admin/traffic_operations.h"

namespace inferneo {
namespace {

// The models of a registry that no server has: none of them does anything.
class RegisteredModels final : public TrafficModels {
 public:
  RegisteredModels(const EngineConfig& config, RegistrySnapshot snapshot)
      : config_(config), catalog_(std::move(snapshot)) {}

  std::optional<std::string> resolve(std::string_view name) const override {
    const auto ids = catalog_.resolve(name);
    if (!ids.ok() || ids->empty()) return std::nullopt;
    return ids->front().text();
  }
  std::optional<std::string> alias_target(std::string_view name) const override {
    for (const AliasRecord& alias : catalog_.snapshot().aliases) {
      if (alias.alias == name) return alias.target();
    }
    return std::nullopt;
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const NameRecord& record : catalog_.snapshot().names) names.push_back(record.name);
    for (const AliasRecord& record : catalog_.snapshot().aliases) names.push_back(record.alias);
    return names;
  }
  ChainLink link(std::string_view) const override { return {}; }
  CandidateView candidate(std::string_view) const override { return {}; }
  Status check_variant(const ModelVariant& variant) const override {
    const Catalog with_it(catalog_.snapshot(), {}, {variant});
    if (with_it.variants().empty()) {
      return make_error(ErrorCode::not_found, fmt::format("there is no model '{}'", variant.base), "model");
    }
    return check_settings(config_, with_it.variants().front().record);
  }

 private:
  const EngineConfig& config_;
  const Catalog catalog_;
};

Result<AdminAnswer> answer_of(TrafficAnswer answer) {
  AdminAnswer out{.status = answer.status, .text = std::move(answer.json), .json = {}};
  out.json = nlohmann::json::parse(out.text);
  return out;
}

Result<AdminAnswer> ask_file(const EngineConfig& config, const TrafficOperation& operation, const std::string& id,
                             const std::string& body) {
  static const SteadyClock clock;
  std::string path = registry_path(config);
  std::error_code error;
  // Looking makes no file.
  if (operation.method == Method::get && !std::filesystem::exists(path, error) && !error) path.clear();
  ASSIGN_OR_RETURN(const auto registry, Registry::open(path));
  ASSIGN_OR_RETURN(RegistrySnapshot snapshot, registry->load_all());
  RegisteredModels models(config, std::move(snapshot));
  RegistryTrafficStore store(*registry);
  Traffic traffic(models, clock, &store);
  RETURN_IF_ERROR(traffic.begin({.known = false}));
  ASSIGN_OR_RETURN(TrafficAnswer answer, operation.run({traffic, clock}, id, body));
  return answer_of(std::move(answer));
}

constexpr std::string_view method_text(Method method) {
  switch (method) {
    case Method::post:
      return "POST";
    case Method::put:
      return "PUT";
    case Method::del:
      return "DELETE";
    default:
      return "GET";
  }
}

}  // namespace

Result<AdminAnswer> ask_traffic(const ModelCommand& command, Method method, std::string_view path,
                                const std::string& id, const nlohmann::json& body) {
  const std::string text =
      body.is_null() ? std::string() : body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (const AdminClient* const server = command.admin->server()) {
    std::string address(path);
    if (const size_t at = address.find("{id}"); at != std::string::npos)
      address.replace(at, 4, hub::url_encode(id, true));
    return server->call(method_text(method), address, text);
  }
  const TrafficOperation* const operation = find_traffic_operation(method, path);
  if (operation == nullptr) return make_error(ErrorCode::internal, "there is no such operation");
  return ask_file(command.loaded.config, *operation, id, text);
}

int run_traffic_verb(std::string_view command, std::span<const TrafficVerb> verbs, const Invocation& invocation,
                     CommandContext& context) {
  const auto& words = invocation.positionals;
  const std::string_view wanted = words.empty() ? verbs.front().name : std::string_view(words[0]);
  const auto code = [&]() -> Result<int> {
    std::string known;
    for (const TrafficVerb& verb : verbs) {
      known += fmt::format("{}{}", known.empty() ? "" : ", ", verb.name);
      if (verb.name != wanted) continue;
      const size_t required = words.empty() ? 0 : verb.words;
      ASSIGN_OR_RETURN(const ModelCommand begun, begin_model_command(command, required, invocation, context));
      return verb.run(begun);
    }
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("{}: '{}' is none of {}", command, wanted.substr(0, 40), known));
  }();
  return code.ok() ? *code : report_error(context, code.error());
}

int show_answer(const ModelCommand& command, const AdminAnswer& answer, const std::string& text) {
  if (command.json()) return command.tell(answer, {});
  command.context.terminal.write(without_control_characters(text));
  return kExitDone;
}

size_t table_width(const CommandContext& context) {
  return context.terminal.out_is_tty() ? static_cast<size_t>(context.terminal.width()) : 0;
}

}  // namespace inferneo
