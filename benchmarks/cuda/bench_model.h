// What the measurements of one GPU share: models of known shapes with random weights that are made in place, each with
// a cache of its own, and steps over them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/cuda/cuda_runner.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

inline constexpr int32_t kBlockSize = 16;

struct Machine {
  std::shared_ptr<Device> device;
  MemoryLedger ledger{SIZE_MAX / 2};
  MemoryLedger host{SIZE_MAX / 2};
  double copy_bytes_per_second = 0.0;  // read and written
  bool failed = false;
  // What sequence 0 was given in the plain steps of a shape: tokens and the bits of their logprobs.
  std::map<std::string, std::vector<std::pair<Token, float>>> chosen;
};

// How steps are launched.
struct Mode {
  const char* name = "graphs";
  bool graphs = true;
  bool overlaps = false;  // kernels start while those before them run
  bool library = true;    // cuBLASLt, where it is
  Quantization weights = Quantization::none;
  DType cache = DType::bf16;
};
// A llama of the given shape.
DecoderSpec llama(int32_t hidden, int32_t layers, int32_t heads, int32_t kv_heads, int32_t head_dim, int32_t inner,
                  int32_t vocab, bool tied);

// A runner with a cache of its own, and sequences that decode.
struct Bench {
  std::unique_ptr<CudaRunner> runner;
  std::vector<std::unique_ptr<PageRange>> ranges;
  size_t weight_bytes = 0;  // read for one token
  size_t parameters = 0;    // that one token is multiplied with
  size_t kv_token_bytes = 0;
  int32_t blocks_per_sequence = 0;
  SamplingParams greedy;
  std::vector<std::pair<Token, float>> chosen;  // of sequence 0
};

Result<std::unique_ptr<Bench>> make_bench(Machine& machine, const DecoderSpec& spec, int32_t sequences, int32_t context,
                                          int32_t max_tokens, const Mode& mode);
// A cache for its runner, with numbers in it; of make_bench(), and of a runner that has woken.
Status bind_cache(Machine& machine, Bench& bench, int32_t sequences, int32_t max_tokens, const Mode& mode);

// One step: `count` tokens of each sequence from `position` on.
struct StepData {
  std::vector<Token> tokens;
  std::vector<std::vector<int32_t>> tables;
  std::vector<std::span<const int32_t>> spans;
};
StepBatch step_of(const Bench& bench, StepData& data, int32_t sequences, int32_t position, int32_t count,
                  std::optional<Ticket> before);
// Waits for it, and keeps what sequence 0 was given.
Status take_result(Bench& bench, Ticket ticket);

}  // namespace inferneo::cuda
