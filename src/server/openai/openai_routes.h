// The OpenAI-compatible API over an InferenceService, with vLLM's extensions: what is there, and by name what is not.
#pragma once

#include <memory>
#include <vector>

#include "server/route_table.h"
#include "serving/inference_service.h"

namespace inferneo {

std::vector<Route> openai_routes(std::shared_ptr<InferenceService> service);

// Each answers one exchange, at once or later through the service's sinks.
void handle_chat(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
void handle_feedback(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
void handle_completion(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
void handle_embeddings(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
void handle_list_models(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
void handle_get_model(InferenceService& service, const std::shared_ptr<Exchange>& exchange);
// These two work on the text pool and keep the service alive meanwhile.
void handle_tokenize(const std::shared_ptr<InferenceService>& service, const std::shared_ptr<Exchange>& exchange);
void handle_detokenize(const std::shared_ptr<InferenceService>& service, const std::shared_ptr<Exchange>& exchange);

}  // namespace inferneo
