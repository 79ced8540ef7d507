// What a model costs a machine, read off its files: the bytes that a decode step reads and the operations of a prefill.
#pragma once

#include <string>

#include "base/result.h"
#include "inferneo/config.h"
#include "kernels/machine_peaks.h"

namespace inferneo {

struct ModelFacts {
  std::string dtype;               // that the weights are kept in: "bf16", "int8"
  double parameters = 0.0;         // all of them
  double layer_parameters = 0.0;   // of matrices that each token goes through, active experts only
  double head_parameters = 0.0;    // of the output head; a tied embedding counts here
  double weight_bytes_read = 0.0;  // by a decode step of one sequence
  double kv_bytes_per_token = 0.0;
  double attention_width = 0.0;  // layers * heads * head_dim
};

// Of the first model of `config`. Errors: those of the files.
Result<ModelFacts> read_model_facts(const EngineConfig& config);

// Share of the peak of its dtype that a prefill of `input_len` tokens per sequence reaches at `rate` tokens/s.
double prefill_share(const ModelFacts& facts, const kernels::MachinePeaks& peaks, int input_len, double rate);
// Share of the read bandwidth that decoding reaches: weights once a step, the KV cache of each sequence.
double decode_share(const ModelFacts& facts, const kernels::MachinePeaks& peaks, int context, int batch, double rate);

}  // namespace inferneo
