// What clients are told while a model is being loaded: in the comments of a waiting stream, in Retry-After.
#pragma once

#include <string>

#include "server/http_message.h"
#include "serving/inference_service.h"

namespace inferneo {

// "loading story:1, place 2, about 3 s"; empty when `model` is not waited for.
std::string wait_comment(const InferenceService& service, const std::string& model);

// The error as it goes out; the time after which another try has a chance, when it is the model's load that lacks.
HttpError with_retry_after(const InferenceService& service, const std::string& model, const Error& error);

}  // namespace inferneo
