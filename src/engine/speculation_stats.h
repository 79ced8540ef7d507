// How speculation has fared. Counters only grow.
#pragma once

#include <array>
#include <cstdint>

namespace inferneo {

struct SpeculationStats {
  static constexpr int32_t kPositions = 16;  // a longer draft's are counted with the last
  uint64_t drafts = 0;                       // verified, of one sequence and step
  uint64_t draft_tokens = 0;
  uint64_t accepted_tokens = 0;
  std::array<uint64_t, kPositions> accepted_at{};  // by position in the draft
};

}  // namespace inferneo
