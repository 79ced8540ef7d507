#include "server/kserve/kserve_routes.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "server/head_traits.h"
#include "server/json_fields.h"
#include "server/json_writer.h"
#include "server/kserve/tensor_json.h"
#include "server/rate_limits.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTensors = 256;
constexpr size_t kMaxIdBytes = 512;
constexpr std::string_view kVersions = "/versions/";
constexpr int kNotReady = 400;  // the protocol: a status of 4xx is "no"

struct NameAndVersion {
  std::string_view name;
  std::string_view version;  // may be empty
};
NameAndVersion parts_of(std::string_view model) {
  const size_t colon = model.rfind(':');
  if (colon == std::string_view::npos) return {model, {}};
  return {model.substr(0, colon), model.substr(colon + 1)};
}

void answer_server(const std::shared_ptr<Exchange>& exchange) {
  JsonWriter json;
  json.begin_object().field("name", "inferneo").field("version", INFERNEO_VERSION);
  json.key("extensions").begin_array().end_array().end_object();
  respond_json(*exchange, json.take());
}

void answer_flag(Exchange& exchange, const char* name, bool value) {
  JsonWriter json;
  json.begin_object().field(name, value).end_object();
  respond_json(exchange, json.take(), value ? 200 : kNotReady);
}

void answer_model(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  const std::string model = kserve_model(exchange->request().path_param);
  service.with_graph(model, [&service, exchange, model](Result<GraphDescription> found) {
    if (!found.ok()) return exchange->fail(with_retry_after(service, model, found.error()));
    const NameAndVersion parts = parts_of(found->model);
    JsonWriter json;
    json.begin_object().field("name", parts.name).key("versions").begin_array();
    for (const std::string& version : found->versions) json.string(version);
    json.end_array().field("platform", "onnx_onnxv1").key("inputs");
    write_ports(json, found->graph.inputs);
    json.key("outputs");
    write_ports(json, found->graph.outputs);
    json.key("parameters").begin_object().field("kind", model_kind_name(found->graph.kind)).end_object().end_object();
    respond_json(*exchange, json.take());
  });
}

void answer_model_ready(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  const std::string name = kserve_model(exchange->request().path_param);
  const Result<ServedModel> model = service.model(name);
  if (!model.ok()) return exchange->fail(model.error());
  const bool ready = model->state == "ready";
  JsonWriter json;
  json.begin_object().field("name", parts_of(name).name).field("ready", ready).end_object();
  respond_json(*exchange, json.take(), ready ? 200 : kNotReady);
}

void answer_infer(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  std::shared_ptr<AdmissionTicket> ticket;
  if (!admit(service, exchange, ticket)) return;
  if (exchange->request().head.header("inference-header-content-length") != nullptr) {
    return exchange->fail(
        make_error(ErrorCode::unsupported, "binary tensor data are not taken here; send the tensors' data as JSON"));
  }
  Result<KserveInfer> parsed = parse_kserve_infer(exchange->take_body());
  if (!parsed.ok()) return exchange->fail(parsed.error());
  InferRequest request{kserve_model(exchange->request().path_param), std::move(parsed->call), std::move(ticket)};
  if (service.wants_traits()) add_head_traits(exchange->request().head, request.traits);
  request.request_id = exchange->request_id();
  request.on_route = [exchange](const std::string& route) { exchange->set_route(route); };
  const std::string model = request.model;
  auto done = [&service, exchange, model, id = std::move(parsed->id)](Result<InferAnswer> answer) {
    if (!answer.ok()) return exchange->fail(with_retry_after(service, model, answer.error()));
    respond_json(*exchange, write_kserve_answer(id, *answer));
  };
  const std::shared_ptr<GenerationHandle> handle = service.infer(std::move(request), std::move(done));
  exchange->on_abandoned([handle] {
    if (handle != nullptr) handle->cancel();
  });
}

Result<std::string> read_output(const Json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("name")) return field_error(where, "must be an object with a name");
  if (const auto parameters = json.find("parameters"); parameters != json.end() && parameters->is_object()) {
    const auto binary = parameters->find("binary_data");
    if ((binary != parameters->end() && *binary == true) || parameters->contains("classification") ||
        parameters->contains("shared_memory_region")) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{}.parameters: outputs are given as JSON alone, as they are", where));
    }
  }
  return read_string(json["name"], where + ".name", kMaxIdBytes);
}

}  // namespace

std::string kserve_model(std::string_view path) {
  const size_t at = path.rfind(kVersions);
  if (at == std::string_view::npos || at == 0) return std::string(path);
  return fmt::format("{}:{}", path.substr(0, at), path.substr(at + kVersions.size()));
}

Result<KserveInfer> parse_kserve_infer(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  KserveInfer infer;
  if (const auto id = json.find("id"); id != json.end() && !id->is_null()) {
    ASSIGN_OR_RETURN(infer.id, read_string(*id, "id", kMaxIdBytes));
  }
  const auto inputs = json.find("inputs");
  if (inputs == json.end() || !inputs->is_array() || inputs->size() > kMaxTensors) {
    return field_error("inputs", fmt::format("must be a list of at most {} tensors", kMaxTensors));
  }
  size_t room = kMaxCallBytes;
  for (size_t i = 0; i < inputs->size(); ++i) {
    ASSIGN_OR_RETURN(NamedTensor tensor, read_tensor((*inputs)[i], fmt::format("inputs[{}]", i), room));
    infer.call.inputs.push_back(std::move(tensor));
  }
  const auto outputs = json.find("outputs");
  if (outputs == json.end() || outputs->is_null()) return infer;
  if (!outputs->is_array() || outputs->size() > kMaxTensors) {
    return field_error("outputs", fmt::format("must be a list of at most {} outputs", kMaxTensors));
  }
  for (size_t i = 0; i < outputs->size(); ++i) {
    ASSIGN_OR_RETURN(std::string name, read_output((*outputs)[i], fmt::format("outputs[{}]", i)));
    infer.call.outputs.push_back(std::move(name));
  }
  return infer;
}

std::string write_kserve_answer(const std::string& id, const InferAnswer& answer) {
  const NameAndVersion parts = parts_of(answer.model);
  JsonWriter json;
  json.begin_object().field("model_name", parts.name).field("model_version", parts.version);
  if (!id.empty()) json.field("id", id);
  json.key("outputs").begin_array();
  for (const NamedTensor& tensor : answer.outputs) write_tensor(json, tensor);
  json.end_array().end_object();
  return json.take();
}

std::vector<Route> kserve_routes(std::shared_ptr<InferenceService> service) {
  constexpr AuthPolicy kKey = AuthPolicy::api_key;
  using Answer = void (*)(InferenceService&, const std::shared_ptr<Exchange>&);
  const auto with = [&](Answer answer) -> Handler {
    return [service, answer](std::shared_ptr<Exchange> exchange) { answer(*service, exchange); };
  };
  return {
      Route(Method::get, "/v2", kKey, [](std::shared_ptr<Exchange> exchange) { answer_server(exchange); }),
      Route(Method::get, "/v2/health/live", AuthPolicy::open,
            [](std::shared_ptr<Exchange> exchange) { answer_flag(*exchange, "live", true); }),
      Route(Method::get, "/v2/health/ready", AuthPolicy::open,
            [service](std::shared_ptr<Exchange> exchange) { answer_flag(*exchange, "ready", service->ready().ok()); }),
      Route(Method::get, "/v2/models/{id}", kKey, with(answer_model)),
      Route(Method::get, "/v2/models/{id}/ready", kKey, with(answer_model_ready)),
      Route(Method::post, "/v2/models/{id}/infer", kKey, with(answer_infer)),
  };
}

}  // namespace inferneo
