// How speculation has fared. Counters only grow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace inferneo {

enum class DraftSource : uint8_t { lookup, draft_model, grammar };
inline constexpr size_t kNumDraftSources = 3;
inline constexpr std::array<const char*, kNumDraftSources> kDraftSourceNames = {"lookup", "draft_model", "grammar"};

struct SpeculationStats {
  static constexpr int32_t kPositions = 16;  // a longer draft's are counted with the last
  struct Source {
    uint64_t drafts = 0;  // verified, of one sequence and step; counted with the source of its first token
    uint64_t draft_tokens = 0;
    uint64_t accepted_tokens = 0;
  };
  std::array<Source, kNumDraftSources> by_source{};
  std::array<uint64_t, kPositions> accepted_at{};  // by position in the draft

  const Source& of(DraftSource source) const { return by_source[static_cast<size_t>(source)]; }
  Source& of(DraftSource source) { return by_source[static_cast<size_t>(source)]; }
  void add(DraftSource source, int32_t num_draft, int32_t num_accepted) {
    of(source).draft_tokens += static_cast<uint64_t>(num_draft);
    of(source).accepted_tokens += static_cast<uint64_t>(num_accepted);
  }
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
