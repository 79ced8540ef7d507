// The data file of a converted model: carries out a WeightPlan's jobs, piece by piece, on the compute pool.
//
// Memory: a few megabytes for each thread, and those pages of the checkpoint that the job under way has read, at most
// one tensor; they are given back when the job is done. Errors: unsupported, naming the tensor, for values that the
// wanted type cannot hold; malformed when a weight file was cut short meanwhile; disk_full, io_error; what `progress`
// returns.
#pragma once

#include <functional>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/onnx/data_file.h"
#include "models/decoder_spec.h"
#include "models/onnx_convert/weight_plan.h"

namespace inferneo {

struct WeightSource {
  const DecoderSpec& spec;
  const Checkpoint& checkpoint;
  const std::vector<const SafetensorsTensor*>& bound;  // bind_tensors()
  int32_t max_positions = 0;                           // of rope tables
};

// Bytes of the data file that are written; called on the calling thread after every job.
using WriteProgress = std::function<Status(uint64_t done, uint64_t total)>;

Status write_weights(const WeightSource& source, const std::vector<WeightJob>& jobs, const DataFile& file,
                     ThreadPool& pool, const WriteProgress& progress);

}  // namespace inferneo
