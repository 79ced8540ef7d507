// The Open Inference Protocol (KServe's v2 of it) over an InferenceService, for models that take tensors: server and
// model metadata, health, and inference. JSON alone: the extension for binary data and that for shared memory are not
// there. Errors are {"error": "..."} (http_message.h). docs/kserve.md says what there is.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/route_table.h"
#include "serving/inference_service.h"

namespace inferneo {

std::vector<Route> kserve_routes(std::shared_ptr<InferenceService> service);

// "name" or "name/versions/3", as it stands in a path, as requests name a model: "name", "name:3".
std::string kserve_model(std::string_view path);

struct KserveInfer {
  std::string id;  // the client's own; empty: none
  TensorCall call;
};
Result<KserveInfer> parse_kserve_infer(std::string_view body);
std::string write_kserve_answer(const std::string& id, const InferAnswer& answer);

}  // namespace inferneo
