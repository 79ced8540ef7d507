// What a configuration says about loading ONNX graphs; where they lie and whose memory they take is the caller's to
// add.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "inferneo/config.h"
#include "models/onnx/onnx_loader.h"

namespace inferneo {

onnx::OnnxLoadOptions onnx_settings(const EngineConfig& config);

// A graph has its types and its weights as they are: what would change them is refused (unsupported), not passed over.
Status check_onnx_settings(const std::string& name, const EngineConfig& config);

// Of a model in another format, which does nothing but generate: unsupported, where its task says something else.
Status check_is_no_onnx_task(const std::string& name, std::string_view format, const EngineConfig& config);

}  // namespace inferneo
