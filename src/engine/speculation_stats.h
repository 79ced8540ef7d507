// How speculation has fared. Counters only grow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace inferneo {

enum class DraftSource : uint8_t { lookup, draft_model };
inline constexpr size_t kNumDraftSources = 2;
inline constexpr std::array<const char*, kNumDraftSources> kDraftSourceNames = {"lookup", "draft_model"};

struct SpeculationStats {
  static constexpr int32_t kPositions = 16;  // a longer draft's are counted with the last
  struct Source {
    uint64_t drafts = 0;  // verified, of one sequence and step
    uint64_t draft_tokens = 0;
    uint64_t accepted_tokens = 0;
  };
  std::array<Source, kNumDraftSources> by_source{};
  std::array<uint64_t, kPositions> accepted_at{};  // by position in the draft

  const Source& of(DraftSource source) const { return by_source[static_cast<size_t>(source)]; }
  Source total() const {
    Source total;
    for (const Source& source : by_source) {
      total.drafts += source.drafts;
      total.draft_tokens += source.draft_tokens;
      total.accepted_tokens += source.accepted_tokens;
    }
    return total;
  }
};

}  // namespace inferneo
