// What a runner refuses in a batch before it looks at anything else: a malformed step is a bug above the seam, and is
// named instead of computed. Pure; shared by the runners with paged caches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/model_runner.h"

namespace inferneo {

struct StepLimits {
  struct Group {
    int32_t window = 0;    // 0: all
    int32_t capacity = 0;  // blocks
  };
  std::vector<Group> groups = {};
  int32_t block_size = 0;
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
  int32_t max_num_seqs = 0;
  int32_t max_num_tokens = 0;
  int32_t max_rows_to_verify = 0;  // num_draft + 1 is at most that
};

Error bad_step(std::string_view problem);

// invalid_argument, saying what is wrong. Token ids are the caller's to check, where they are known.
Status check_step(const StepLimits& limits, const StepBatch& batch);

}  // namespace inferneo
