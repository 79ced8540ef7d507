#include "server/admin/shadow_routes.h"

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/admin/model_requests.h"
#include "server/admin/traffic_definition.h"
#include "server/admin/worker.h"
#include "server/json_fields.h"
#include "server/json_writer.h"

namespace inferneo {
namespace {

constexpr int64_t kDefaultLimit = 50;

// ---- writing

using Values = ShadowDifferences::Values;

void write_values(JsonWriter& json, std::string_view name, const Values& values) {
  json.key(name);
  if (values.moments.count == 0) {
    json.null();
    return;
  }
  json.begin_object().field("count", values.moments.count).key("mean").number(values.moments.mean);
  for (const auto& [label, quantile] : {std::pair{"p50", 0.5}, std::pair{"p95", 0.95}, std::pair{"p99", 0.99}}) {
    json.key(label).number(values.histogram.quantile(quantile));
  }
  json.end_object();
}

void write_compared(JsonWriter& json, std::string_view name, const ShadowDifferences::Compared& compared) {
  json.key(name).begin_object();
  write_values(json, "original", compared.original);
  write_values(json, "copy", compared.copy);
  write_values(json, "ratio", compared.ratio);
  json.end_object();
}

void write_differences(JsonWriter& json, const ShadowDifferences& differences) {
  json.key("differences").begin_object();
  json.field("pairs", differences.pairs).field("same_text", differences.same_text);
  json.field("same_finish_reason", differences.same_finish);
  write_values(json, "first_difference", differences.first_difference);
  write_compared(json, "completion_tokens", differences.completion_tokens);
  json.key("computing").begin_object();
  for (size_t i = 0; i < kNumShadowTimes; ++i) {
    write_compared(json, shadow_time_name(static_cast<ShadowTime>(i)), differences.computing[i]);
  }
  json.end_object().end_object();
}

void write_shadow(JsonWriter& json, const ShadowBook::View& view) {
  json.begin_object().field("object", "shadow");
  write_shadow_fields(json, view.config);
  json.field("source", record_origin_name(view.origin));
  const std::lock_guard lock(view.results->mutex);
  const ShadowCounts& counts = view.results->counts;
  json.key("copies").begin_object();
  json.field("sent", counts.sent).field("completed", counts.completed).field("dropped", counts.all_dropped());
  json.field("failed", counts.failed).field("in_hand", view.in_hand);
  json.field("prompt_tokens", counts.prompt_tokens).field("completion_tokens", counts.completion_tokens);
  json.key("dropped_because").begin_object();
  for (size_t i = 0; i < kNumShadowDrops; ++i) {
    json.field(shadow_drop_name(static_cast<ShadowDrop>(i)), counts.dropped[i]);
  }
  json.end_object().end_object();
  write_differences(json, view.results->differences);
  json.end_object();
}

void write_side(JsonWriter& json, std::string_view name, const ShadowPair::Side& side, bool with_text) {
  json.key(name).begin_object().field("model", side.model).field("finish_reason", side.finish);
  json.field("prompt_tokens", side.prompt_tokens).field("completion_tokens", side.completion_tokens);
  json.key("computing").begin_object();
  for (size_t i = 0; i < kNumShadowTimes; ++i) {
    json.key(shadow_time_name(static_cast<ShadowTime>(i)));
    if (side.computing[i]) {
      json.number(*side.computing[i]);
    } else {
      json.null();
    }
  }
  json.end_object().key("waited").number(side.waited);
  if (with_text) json.field("text", side.text);
  json.end_object();
}

void write_pair(JsonWriter& json, const ShadowPair& pair, bool with_text) {
  json.begin_object().field("object", "shadow_result").field("request_id", pair.request_id).field("time", pair.time);
  write_side(json, "original", pair.original, with_text);
  write_side(json, "copy", pair.copy, with_text);
  json.field("same_text", pair.same_text).key("first_difference");
  if (pair.first_difference) {
    json.integer(*pair.first_difference);
  } else {
    json.null();
  }
  json.end_object();
}

// ---- answering

Result<ShadowConfig> parse_request(std::string_view body) {
  return body.empty() ? read_shadow(Json(Json::value_t::object)) : parse_shadow(body);
}

Error no_shadow(const std::string& name) {
  return make_error(ErrorCode::not_found, "there is no shadow '" + name.substr(0, 128) + "'", "name");
}

void respond_shadow(const ShadowBook& shadows, Exchange& exchange, const std::string& name, int status = 200) {
  const auto view = shadows.find(name);
  if (!view) return exchange.fail(no_shadow(name));
  JsonWriter json;
  write_shadow(json, *view);
  respond_json(exchange, json.take(), status);
}

void handle_list_shadows(ShadowBook& shadows, Exchange& exchange) {
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const ShadowBook::View& view : shadows.list()) write_shadow(json, view);
  json.end_array().end_object();
  respond_json(exchange, json.take());
}

void handle_add_shadow(ShadowBook& shadows, Exchange& exchange) {
  const Result<ShadowConfig> config = parse_request(exchange.take_body());
  if (!config.ok()) return exchange.fail(config.error());
  if (const Status added = shadows.add(*config); !added.ok()) return exchange.fail(added.error());
  respond_shadow(shadows, exchange, config->name, 201);
}

void handle_show_shadow(ShadowBook& shadows, Exchange& exchange) {
  respond_shadow(shadows, exchange, exchange.request().path_param);
}

void handle_replace_shadow(ShadowBook& shadows, Exchange& exchange) {
  Result<ShadowConfig> config = parse_request(exchange.take_body());
  if (!config.ok()) return exchange.fail(config.error());
  const std::string& name = exchange.request().path_param;
  if (!config->name.empty() && config->name != name) {
    return exchange.fail(field_error("name", "must be that of the path; a shadow keeps its name"));
  }
  config->name = name;
  if (const Status replaced = shadows.replace(*config); !replaced.ok()) return exchange.fail(replaced.error());
  respond_shadow(shadows, exchange, name);
}

void handle_remove_shadow(ShadowBook& shadows, Exchange& exchange) {
  if (const Status empty = read_nothing(exchange.take_body()); !empty.ok()) return exchange.fail(empty.error());
  const std::string& name = exchange.request().path_param;
  if (const Status removed = shadows.remove(name); !removed.ok()) return exchange.fail(removed.error());
  JsonWriter json;
  json.begin_object().field("name", name).field("removed", true).end_object();
  respond_json(exchange, json.take());
}

void handle_shadow_results(ShadowBook& shadows, Exchange& exchange) {
  const Result<AdminQuery> query = read_query(exchange.request().head, {"limit"});
  if (!query.ok()) return exchange.fail(query.error());
  const std::string& name = exchange.request().path_param;
  const auto view = shadows.find(name);
  if (!view) return exchange.fail(no_shadow(name));
  const auto limit = static_cast<size_t>(query->limit.value_or(kDefaultLimit));
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  const std::lock_guard lock(view->results->mutex);
  const std::deque<ShadowPair>& pairs = view->results->pairs;
  const size_t count = std::min(limit, pairs.size());
  for (size_t i = 0; i < count; ++i) write_pair(json, pairs[pairs.size() - 1 - i], view->config.keep_texts);
  json.end_array().end_object();
  respond_json(exchange, json.take());
}

struct ShadowRow {
  Method method;
  std::string_view path;
  void (*handler)(ShadowBook& shadows, Exchange& exchange);
};
constexpr std::array kShadowRoutes = {
    ShadowRow{Method::get, "/admin/shadow", handle_list_shadows},
    ShadowRow{Method::post, "/admin/shadow", handle_add_shadow},
    ShadowRow{Method::get, "/admin/shadow/{id}", handle_show_shadow},
    ShadowRow{Method::put, "/admin/shadow/{id}", handle_replace_shadow},
    ShadowRow{Method::del, "/admin/shadow/{id}", handle_remove_shadow},
    ShadowRow{Method::get, "/admin/shadow/{id}/results", handle_shadow_results},
};

}  // namespace

// All of them on the worker: what changes a shadow waits for the disk.
std::vector<Route> shadow_routes(ShadowBook& shadows) {
  const auto worker = std::make_shared<AdminWorker>();
  std::vector<Route> routes;
  for (const ShadowRow& row : kShadowRoutes) {
    routes.emplace_back(
        row.method, row.path, AuthPolicy::admin_key,
        [&shadows, worker, handler = row.handler](const std::shared_ptr<Exchange>& exchange) {
          if (worker->try_post([&shadows, handler, exchange] { handler(shadows, *exchange); })) return;
          exchange->fail(make_error(ErrorCode::queue_full, "Too many changes wait to be made; try again later."));
        });
  }
  return routes;
}

}  // namespace inferneo
