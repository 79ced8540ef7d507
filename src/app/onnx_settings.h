// What a configuration says about loading ONNX graphs; where they lie and whose memory they take is the caller's to
// add.
#pragma once

#include "inferneo/config.h"
#include "models/onnx/onnx_loader.h"

namespace inferneo {

onnx::OnnxLoadOptions onnx_settings(const EngineConfig& config);

}  // namespace inferneo
