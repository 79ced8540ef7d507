// Constraining output to JSON, a JSON schema, a regular expression, a choice or a Lark grammar.
//
// GrammarCompiled is immutable and thread-safe; a GrammarMatcher belongs to one sequence and one thread at a time.
// Compilation runs on text threads under limits (time, size): a bomb is an error (invalid_argument), not a stall.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

// Tokens that probably follow, since a grammar leaves the text little choice. The text, not the tokens: those are as
// the model's tokenizer would have them, and the model may write the same text with others. So they are guesses.
enum class Certainty : uint8_t {  // the numbers of foresight::Certainty on the Rust side
  text,                           // its text follows; only in which tokens it is written is a guess
  space,                          // if the white space in it, or in front of it, is what is guessed, or none
  end,                            // behind it there is a choice: it may be written together with what comes of that
};
inline constexpr size_t kNumCertainties = 3;
struct Foresight {
  std::vector<Token> tokens;
  std::vector<Certainty> certainty;  // [tokens]
};

class GrammarMatcher {
 public:
  virtual ~GrammarMatcher() = default;
  // Sets bit t of mask (ceil(vocab/32) words, vocab = width of a logits row) exactly for the tokens that may come next.
  virtual Status fill_mask(std::span<uint32_t> mask) = 0;
  virtual Status accept(Token token) = 0;  // invalid_argument when the token is not allowed
  virtual Status rollback(int num_tokens) = 0;
  virtual bool is_finished() const = 0;  // nothing but end-of-sequence may follow
  // At most so many, and in a time that they alone bound. Nothing changes, but that a matcher may reach its limits over
  // it and fail, as over a token. Nothing where the grammar, or whoever makes tokens of its text, cannot say.
  virtual Result<Foresight> foresee(int32_t max_tokens) {
    (void)max_tokens;
    return Foresight{};
  }
};

class GrammarCompiled {
 public:
  virtual ~GrammarCompiled() = default;
  virtual Result<std::unique_ptr<GrammarMatcher>> new_matcher() const = 0;
};

}  // namespace inferneo
