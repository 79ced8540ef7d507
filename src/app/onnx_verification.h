// How a converted model is run to be compared with the native one.
#pragma once

#include <string>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "inferneo/onnx_converter.h"

namespace inferneo {

// `library`: of ONNX Runtime, as EngineConfig::onnxruntime. Without one the verification is not `done` and says why.
// Errors: those of loading either model; numeric when the converted one is out of its precision's bound.
Result<ConvertVerification> verify_conversion(const ModelDirectory& native, const std::string& converted,
                                              const ConvertOptions& options, ThreadPool& pool,
                                              const std::string& library);

}  // namespace inferneo
