// GET /v1/models and GET /v1/models/{id}.
#include "server/json_writer.h"
#include "server/openai/openai_routes.h"

namespace inferneo {
namespace {

void write_model(JsonWriter& json, const ServedModel& model) {
  json.begin_object().field("id", model.id).field("object", "model").field("created", model.created);
  json.field("owned_by", "inferneo").field("root", model.root).key("parent").null();
  json.field("max_model_len", model.max_model_len).field("version", model.version).field("state", model.state);
  json.key("kind");
  if (model.kind.empty()) {
    json.null();
  } else {
    json.string(model.kind);
  }
  json.end_object();
}

}  // namespace

void handle_list_models(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const ServedModel& model : service.models()) write_model(json, model);
  json.end_array().end_object();
  respond_json(*exchange, json.take());
}

void handle_get_model(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  const std::string& id = exchange->request().path_param;
  const Result<ServedModel> model = service.model(id);
  if (!model.ok()) return exchange->fail(model.error());
  JsonWriter json;
  write_model(json, *model);
  respond_json(*exchange, json.take());
}

}  // namespace inferneo
