// Constraining output to JSON, a JSON schema, a regular expression, a choice or a Lark grammar.
//
// GrammarCompiled is immutable and thread-safe; a GrammarMatcher belongs to one sequence and one thread at a time.
// Compilation runs on text threads under limits (time, size): a bomb is an error (invalid_argument), not a stall.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

class GrammarMatcher {
 public:
  virtual ~GrammarMatcher() = default;
  // Sets bit t of mask (ceil(vocab/32) words, vocab = width of a logits row) exactly for the tokens that may come next.
  virtual Status fill_mask(std::span<uint32_t> mask) = 0;
  virtual Status accept(Token token) = 0;  // invalid_argument when the token is not allowed
  virtual Status rollback(int num_tokens) = 0;
  virtual bool is_finished() const = 0;  // nothing but end-of-sequence may follow
};

class GrammarCompiled {
 public:
  virtual ~GrammarCompiled() = default;
  virtual Result<std::unique_ptr<GrammarMatcher>> new_matcher() const = 0;
};

}  // namespace inferneo
