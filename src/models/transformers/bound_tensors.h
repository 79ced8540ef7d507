// The tensors of a checkpoint that a spec's bindings name, checked: what every reader of a DecoderSpec begins with.
#pragma once

#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/packed_matrix.h"
#include "models/decoder_spec.h"

namespace inferneo {

// One for each of spec.tensors, in that order; they live as long as the checkpoint.
// Errors: malformed, naming the tensor, for missing, surplus and mis-shaped tensors; unsupported for element types
// other than f32, f16 and bf16.
Result<std::vector<const SafetensorsTensor*>> bind_tensors(const DecoderSpec& spec, const Checkpoint& checkpoint);

// The whole tensor that a matrix binding names rows of, as [source_rows, cols].
kernels::WeightView source_view(const TensorBinding& binding, const SafetensorsTensor& tensor);

// Element i of a tensor of one of the types above.
float read_element(const SafetensorsTensor& tensor, int64_t i);

}  // namespace inferneo
