// What a request must be like before an engine takes it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "engine/request.h"
#include "models/model_runner.h"

namespace inferneo {

struct RequestLimits {
  const std::string& model;
  const ModelSpec& spec;
  int32_t max_model_len = 0;
  int32_t context_limit = 0;  // prompt and output of one sequence; shorter where memory holds no more
};

// Errors: invalid_argument, unsupported and context_too_long of EngineCore::submit(), each naming the parameter.
Status check_request(const Request& request, const RequestLimits& limits);

}  // namespace inferneo
