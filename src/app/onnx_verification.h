// How a converted model is run to be compared with the native one.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "inferneo/onnx_converter.h"
#include "models/model_runner.h"

namespace inferneo {

// Loads the ONNX model in a directory.
using ConvertedLoader = std::function<Result<std::unique_ptr<ModelRunner>>(const std::string& directory)>;

// Empty: this build has no runner for ONNX models.
ConvertedLoader converted_model_loader();

// Without a loader the verification is not `done` and says why. Errors: those of loading either model; numeric when the
// converted one is out of its precision's bound.
Result<ConvertVerification> verify_conversion(const ModelDirectory& native, const std::string& converted,
                                              const ConvertOptions& options, ThreadPool& pool,
                                              const ConvertedLoader& load_converted);

}  // namespace inferneo
