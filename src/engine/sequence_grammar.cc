#include "engine/sequence_grammar.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr double kNewestWeight = 0.2;  // of the newest mask in what a mask takes

void average(double& known, double seconds) {
  known = known == 0.0 ? seconds : known + kNewestWeight * (seconds - known);
}

}  // namespace

SequenceGrammar::SequenceGrammar(std::shared_ptr<const GrammarCompiled> grammar, int32_t vocab_size, const Clock& clock)
    : grammar_(std::move(grammar)), clock_(clock), words_((static_cast<size_t>(vocab_size) + 31) / 32) {}

Result<std::unique_ptr<SequenceGrammar>> SequenceGrammar::open(std::shared_ptr<const GrammarCompiled> grammar,
                                                               int32_t vocab_size, const Clock& clock) {
  std::unique_ptr<SequenceGrammar> opened(new SequenceGrammar(std::move(grammar), vocab_size, clock));
  ASSIGN_OR_RETURN(opened->matcher_, opened->grammar_->new_matcher());
  return opened;
}

void SequenceGrammar::forget_walk() {
  walked_.clear();
  depth_ = 0;
  num_masks_ = 0;
}

Status SequenceGrammar::make_anew() {
  forget_walk();
  can_walk_ = false;
  has_walked_ = false;
  ASSIGN_OR_RETURN(matcher_, grammar_->new_matcher());
  for (const Token token : output_) RETURN_IF_ERROR(matcher_->accept(token));
  return ok_status();
}

Status SequenceGrammar::accept(Token token) {
  if (!walked_.empty() && walked_.front() == token && depth_ > 0) {
    walked_.erase(walked_.begin());
    --depth_;
    if (num_masks_ > 0) {
      masks_.erase(masks_.begin(), masks_.begin() + static_cast<std::ptrdiff_t>(words_));
      --num_masks_;
    }
    output_.push_back(token);
    return ok_status();
  }
  Status stood = stand_at(0);
  forget_walk();
  if (stood.ok()) stood = matcher_->accept(token);
  if (!stood.ok() && has_walked_) {
    RETURN_IF_ERROR(make_anew());
    stood = matcher_->accept(token);
  }
  if (stood.ok()) output_.push_back(token);
  return stood;
}

// Behind tokens that were walked it is not: the walk ends before one that finishes it.
bool SequenceGrammar::is_finished() const { return depth_ == 0 && matcher_->is_finished(); }

Status SequenceGrammar::stand_at(int32_t depth) {
  if (depth_ > depth) {
    RETURN_IF_ERROR(matcher_->rollback(depth_ - depth));
    depth_ = depth;
  }
  for (; depth_ < depth; ++depth_) RETURN_IF_ERROR(matcher_->accept(walked_[static_cast<size_t>(depth_)]));
  return ok_status();
}

// False: it refuses the token, or ends with it, and stands where it stood; unless the matcher failed.
bool SequenceGrammar::goes_on_with(Token token) {
  if (!matcher_->accept(token).ok()) {
    can_walk_ = matcher_->rollback(0).ok();  // a matcher that has failed refuses everything
    return false;
  }
  if (!matcher_->is_finished()) return true;
  can_walk_ = matcher_->rollback(1).ok();
  return false;
}

// What of the walk is the same stays.
void SequenceGrammar::keep_common(std::span<const Token> drafts) {
  const auto common = std::ranges::mismatch(walked_, drafts).in1 - walked_.begin();
  if (static_cast<size_t>(common) == drafts.size()) return;
  const auto depth = static_cast<int32_t>(common);
  if (depth_ > depth) can_walk_ = stand_at(depth).ok();
  walked_.resize(static_cast<size_t>(depth));
  num_masks_ = std::min(num_masks_, depth + 1);
}

bool SequenceGrammar::walk_on(Token token) {
  has_walked_ = true;
  can_walk_ = can_walk_ && stand_at(static_cast<int32_t>(walked_.size())).ok();
  if (!can_walk_ || !goes_on_with(token)) return false;
  walked_.push_back(token);
  ++depth_;
  return true;
}

int32_t SequenceGrammar::walk(std::span<const Token> drafts) {
  if (!can_walk_ || drafts.empty()) return 0;
  keep_common(drafts);
  while (can_walk_ && walked_.size() < drafts.size() && walk_on(drafts[walked_.size()])) {
  }
  if (can_walk_) return static_cast<int32_t>(std::min(walked_.size(), drafts.size()));
  // What is wrong with it shows where it is asked next.
  (void)make_anew();
  return 0;
}

Status SequenceGrammar::fill_mask(int32_t depth) {
  RETURN_IF_ERROR(stand_at(depth));
  masks_.resize(std::max(masks_.size(), static_cast<size_t>(depth + 1) * words_));
  RETURN_IF_ERROR(matcher_->fill_mask(std::span(masks_).subspan(static_cast<size_t>(depth) * words_, words_)));
  num_masks_ = depth + 1;
  return ok_status();
}

bool SequenceGrammar::allows(int32_t depth, Token token) const {
  const auto index = static_cast<size_t>(token);
  return token >= 0 && index / 32 < words_ && (mask_behind(depth)[index / 32] >> (index % 32) & 1U) != 0;
}

// As fill_masks(), but that a matcher which fails on the way is left as it is.
Result<int32_t> SequenceGrammar::walk_with_masks(std::span<const Token> drafts) {
  keep_common(drafts);
  const auto num_drafts = static_cast<int32_t>(drafts.size());
  for (int32_t depth = 0;; ++depth) {
    if (num_masks_ <= depth) RETURN_IF_ERROR(fill_mask(depth));
    const bool goes_on = std::ranges::any_of(mask_behind(depth), [](uint32_t word) { return word != 0; });
    if (!goes_on && depth > 0) return depth - 1;
    if (depth == num_drafts) return depth;
    const auto next = static_cast<size_t>(depth);
    const bool walked = next < walked_.size() || (allows(depth, drafts[next]) && walk_on(drafts[next]));
    if (!can_walk_) return make_error(ErrorCode::internal, "a matcher cannot go on");
    if (!walked) return depth;
  }
}

Result<int32_t> SequenceGrammar::fill_masks(std::span<const Token> drafts) {
  if (!can_walk_) drafts = {};
  const TimePoint began = clock_.now();
  const int32_t known = num_masks_;
  Result<int32_t> filled = walk_with_masks(drafts);
  if (!filled.ok() && has_walked_) {
    RETURN_IF_ERROR(make_anew());
    filled = walk_with_masks({});
  }
  if (!filled.ok() || num_masks_ <= known) return filled;
  average(mask_seconds_, to_seconds(clock_.now() - began) / (num_masks_ - known));
  return filled;
}

Foresight SequenceGrammar::foresee(int32_t max_tokens) {
  if (!can_walk_ || is_finished()) return {};
  can_walk_ = stand_at(0).ok();
  has_walked_ = true;
  if (can_walk_) {
    const TimePoint began = clock_.now();
    Result<Foresight> foresight = matcher_->foresee(max_tokens);
    if (foresight.ok()) {
      if (!foresight->tokens.empty()) average(foresee_seconds_, to_seconds(clock_.now() - began));
      return std::move(foresight).value();
    }
    can_walk_ = matcher_->rollback(0).ok();
  }
  // What is wrong with it shows where it is asked next.
  if (!can_walk_) (void)make_anew();
  return {};
}

std::span<const uint32_t> SequenceGrammar::masks(int32_t num_drafts) const {
  return std::span(masks_).first(static_cast<size_t>(num_drafts + 1) * words_);
}

std::span<const uint32_t> SequenceGrammar::mask_behind(int32_t num_drafts) const {
  return std::span(masks_).subspan(static_cast<size_t>(num_drafts) * words_, words_);
}

}  // namespace inferneo
