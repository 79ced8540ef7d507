#include "engine/sequence_grammar.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr double kMaskWeight = 0.2;  // of the newest mask in what a mask takes

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

int32_t SequenceGrammar::walk(std::span<const Token> drafts) {
  if (!can_walk_ || drafts.empty()) return 0;
  has_walked_ = true;
  const auto common = std::ranges::mismatch(walked_, drafts).in1 - walked_.begin();
  if (static_cast<size_t>(common) == drafts.size()) return static_cast<int32_t>(common);
  const auto depth = static_cast<int32_t>(common);
  can_walk_ = stand_at(depth).ok();
  walked_.resize(static_cast<size_t>(depth));
  num_masks_ = std::min(num_masks_, depth + 1);
  while (can_walk_ && walked_.size() < drafts.size() && goes_on_with(drafts[walked_.size()])) {
    walked_.push_back(drafts[walked_.size()]);
    ++depth_;
  }
  if (can_walk_) return static_cast<int32_t>(walked_.size());
  // What is wrong with it shows where it is asked next.
  (void)make_anew();
  return 0;
}

Status SequenceGrammar::fill_mask(int32_t depth) {
  RETURN_IF_ERROR(stand_at(depth));
  const TimePoint began = clock_.now();
  masks_.resize(std::max(masks_.size(), static_cast<size_t>(depth + 1) * words_));
  RETURN_IF_ERROR(matcher_->fill_mask(std::span(masks_).subspan(static_cast<size_t>(depth) * words_, words_)));
  num_masks_ = depth + 1;
  const double seconds = to_seconds(clock_.now() - began);
  mask_seconds_ = mask_seconds_ == 0.0 ? seconds : mask_seconds_ + kMaskWeight * (seconds - mask_seconds_);
  return ok_status();
}

Result<int32_t> SequenceGrammar::fill_masks(std::span<const Token> drafts) {
  const int32_t num_drafts = walk(drafts);
  for (int32_t depth = num_masks_; depth <= num_drafts; ++depth) {
    if (Status filled = fill_mask(depth); !filled.ok()) {
      if (!has_walked_) return filled.error();
      RETURN_IF_ERROR(make_anew());
      RETURN_IF_ERROR(fill_mask(0));
      return 0;
    }
    const bool goes_on = std::ranges::any_of(mask_behind(depth), [](uint32_t word) { return word != 0; });
    if (goes_on || depth == 0) continue;
    num_masks_ = depth;
    return depth - 1;
  }
  return num_drafts;
}

std::span<const uint32_t> SequenceGrammar::masks(int32_t num_drafts) const {
  return std::span(masks_).first(static_cast<size_t>(num_drafts + 1) * words_);
}

std::span<const uint32_t> SequenceGrammar::mask_behind(int32_t num_drafts) const {
  return std::span(masks_).subspan(static_cast<size_t>(num_drafts) * words_, words_);
}

}  // namespace inferneo
