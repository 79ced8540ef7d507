// Drafts without a draft model: what followed the longest earlier occurrence of a sequence's last tokens (prompt lookup
// decoding, Saxena 2023). The search is the match finder of LZ77 compressors: chains of earlier positions with equal
// hash of kMinMatch tokens (Deutsch, RFC 1951, section 4), newest first, of which a bounded number is compared.
// Pure; one thread. Memory: 8 bytes per token and a table of heads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "inferneo/sampling_params.h"

namespace inferneo {

class PromptLookup {
 public:
  static constexpr int32_t kMinMatch = 2;   // tokens; one alone says too little
  static constexpr int32_t kMaxMatch = 32;  // longer ones are not told apart
  static constexpr int32_t kMaxCompared = 16;

  explicit PromptLookup(size_t expected_tokens);

  // The text so far is what all calls together appended.
  void append(std::span<const Token> tokens);
  // Between two texts: no match reaches over it, and no draft.
  void append_border();

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // borders included

  // The tokens of the last match() but for those behind a border, at most `count`. A match that overlaps the end goes
  // on with its period.
  struct Match {
    int32_t length = 0;  // 0: none; at most kMaxMatch
    int32_t next = 0;    // where it goes on
  };
  Match match() const;
  void draft(const Match& match, int32_t count, std::vector<Token>& drafts) const;  // replaces what is in `drafts`

 private:
  static constexpr Token kBorder = -1;

  size_t bucket(int32_t end) const;           // of the kMinMatch tokens before `end`
  int32_t match_length(int32_t end) const;    // of the tokens before `end` with those before the text's end
  bool has_border_before(int32_t end) const;  // among the kMinMatch tokens

  std::vector<Token> tokens_;
  std::vector<int32_t> heads_;     // [power of two] the last position after such tokens; -1: none
  std::vector<int32_t> previous_;  // [tokens + 1] by position, the one before with the same hash
};

}  // namespace inferneo
