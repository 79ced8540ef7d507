// What a model's files can be.
#pragma once

#include <cstdint>

namespace inferneo {

enum class ModelFormat : uint8_t { HuggingFace, ONNX, TensorRT };

}  // namespace inferneo
