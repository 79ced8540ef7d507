// A sequence's grammar: where it stands behind the output, and walks along guessed tokens, to see which of them it
// takes and what may come in the place of each. So a guess under a grammar is verified by the very masks of plain
// decoding.
//
// A walk is taken back only where something else is asked for: what of it becomes output is not walked again, and no
// mask is computed twice.
//
// It also foresees tokens, where it leaves the text little choice.
//
// Goals: whatever is walked or foreseen, masks and refusals are those of a grammar that has seen the output alone. A
// matcher that fails on a walk, or cannot go back (some grammars have parts that cannot), is made anew from the output,
// and its sequence gets no more guesses. One thread. Errors: those of the matcher, where it fails without a walk as
// well.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "text/grammar.h"

namespace inferneo {

class SequenceGrammar {
 public:
  // The clock outlives it. vocab_size: the width of a logits row.
  static Result<std::unique_ptr<SequenceGrammar>> open(std::shared_ptr<const GrammarCompiled> grammar,
                                                       int32_t vocab_size, const Clock& clock);

  Status accept(Token token);  // a token of the output
  bool is_finished() const;    // behind the output nothing but end-of-sequence may follow

  // False: walks go nowhere.
  bool can_walk() const { return can_walk_; }
  // From behind the output along the drafts. How many it takes and goes on behind: a token that ends it is no guess,
  // since the model chooses nothing behind it.
  int32_t walk(std::span<const Token> drafts);
  // Walks, and computes the masks behind the output and behind each draft. Returns for how many of them: fewer where
  // the walk ends, or the grammar has no token to go on with.
  Result<int32_t> fill_masks(std::span<const Token> drafts);
  // [num_drafts + 1, words] of the last fill_masks(); unchanged until something is walked, accepted or filled.
  std::span<const uint32_t> masks(int32_t num_drafts) const;
  std::span<const uint32_t> mask_behind(int32_t num_drafts) const;  // [words], the last of these

  // What probably follows the output, as far as that can be said.
  Foresight foresee(int32_t max_tokens);

  // What a mask takes, with the walk to its place, measured; 0: none was.
  double mask_seconds() const { return mask_seconds_; }
  double foresee_seconds() const { return foresee_seconds_; }  // the same of a foresight that was not empty

 private:
  SequenceGrammar(std::shared_ptr<const GrammarCompiled> grammar, int32_t vocab_size, const Clock& clock);
  Status make_anew();
  Status stand_at(int32_t depth);
  Status fill_mask(int32_t depth);
  bool goes_on_with(Token token);
  bool walk_on(Token token);
  void keep_common(std::span<const Token> drafts);
  bool allows(int32_t depth, Token token) const;
  Result<int32_t> walk_with_masks(std::span<const Token> drafts);
  void forget_walk();

  std::shared_ptr<const GrammarCompiled> grammar_;
  const Clock& clock_;
  size_t words_;
  std::unique_ptr<GrammarMatcher> matcher_;
  std::vector<Token> output_;
  std::vector<Token> walked_;    // tokens behind the output that it takes
  int32_t depth_ = 0;            // of them, those that the matcher stands behind
  std::vector<uint32_t> masks_;  // [num_masks_ or more, words_]
  int32_t num_masks_ = 0;        // behind the output and its first walked tokens
  bool can_walk_ = true;
  bool has_walked_ = false;  // or foreseen, since the matcher was made
  double mask_seconds_ = 0.0;
  double foresee_seconds_ = 0.0;
};

}  // namespace inferneo
