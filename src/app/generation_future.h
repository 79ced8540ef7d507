// One generation as a future, for the public classes.
#pragma once

#include <future>
#include <string>

#include "inferneo/engine.h"
#include "inferneo/result.h"
#include "serving/inference_service.h"

namespace inferneo {

// Errors come through the future. `on_text` may be empty; it is called on the service's threads. Sampling fields are
// taken as they are.
std::future<Result<GenerationResult>> generate_future(InferenceService& service, GenerateRequest request,
                                                      InferneoEngine::TextCallback on_text);
std::future<Result<GenerationResult>> generate_future(InferenceService& service, std::string prompt,
                                                      SamplingParams sampling, std::string model,
                                                      InferneoEngine::TextCallback on_text);
std::future<Result<GenerationResult>> failed_generation(Error error);

}  // namespace inferneo
