// One generation or embedding with its callbacks, or as a future, for the public classes.
#pragma once

#include <functional>
#include <future>
#include <string>
#include <vector>

#include "inferneo/engine.h"
#include "inferneo/generation.h"
#include "inferneo/result.h"
#include "serving/inference_service.h"

namespace inferneo {

// Errors come through on_done. It is called on the service's threads. Sampling fields are taken as they are.
GenerationTicket submit_generation(InferenceService& service, GenerateRequest request, GenerationCallbacks callbacks);
// What a submit() answers whose engine is not there.
GenerationTicket failed_submission(Error error, const GenerationCallbacks& callbacks);

// Errors come through the future. `on_text` may be empty; it is called on the service's threads.
std::future<Result<GenerationResult>> generate_future(InferenceService& service, GenerateRequest request,
                                                      InferneoEngine::TextCallback on_text);
std::future<Result<GenerationResult>> failed_generation(Error error);

// The same for texts as vectors.
EmbedRequest embed_request(std::vector<std::string> texts, const EmbeddingOptions& options, std::string model);
GenerationTicket submit_embedding(InferenceService& service, EmbedRequest request, EmbeddingCallback on_done);
// What `submit` is told at its end: it calls submit_embedding() of a public class.
std::future<Result<EmbeddingResult>> embedding_future(const std::function<void(EmbeddingCallback on_done)>& submit);

inline Error engine_not_running() {
  return make_error(ErrorCode::unavailable, "the engine is not running; call start() first");
}

// A request that names a model, or leaves the choice open.
GenerateRequest plain_request(std::string prompt, SamplingParams sampling, std::string model);

}  // namespace inferneo
