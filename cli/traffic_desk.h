// Whom the commands about rules and A/B tests ask: the running server, else the registry's file. Both answer in the
// words of the admin routes.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "cli/model_command.h"
#include "server/http_message.h"

namespace inferneo {

// `path` as in server/admin/traffic_operations.h, its `{id}` standing for `id`. A null body is none. Errors:
// AdminClient's, the registry's; unavailable for what only a server can do.
Result<AdminAnswer> ask_traffic(const ModelCommand& command, Method method, std::string_view path,
                                const std::string& id = {}, const nlohmann::json& body = nullptr);

// What may follow `inferneo route` and `inferneo ab`; the first is meant where nothing does.
struct TrafficVerb {
  std::string_view name;
  size_t words;  // with itself
  Result<int> (*run)(const ModelCommand& command);
};
// The exit code.
int run_traffic_verb(std::string_view command, std::span<const TrafficVerb> verbs, const Invocation& invocation,
                     CommandContext& context);

// The answer as it is with --json, else the text. The exit code.
int show_answer(const ModelCommand& command, const AdminAnswer& answer, const std::string& text);
size_t table_width(const CommandContext& context);  // 0: not on a terminal, nothing is cut

}  // namespace inferneo
