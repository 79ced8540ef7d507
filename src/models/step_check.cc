#include "models/step_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

Status check_tables(const StepLimits& limits, const SequenceStep& step) {
  const int32_t end = step.position + static_cast<int32_t>(step.tokens.size());
  if (step.block_tables.size() != limits.groups.size()) return bad_step("one block table per group is needed");
  for (size_t g = 0; g < limits.groups.size(); ++g) {
    const StepLimits::Group& group = limits.groups[g];
    const std::span<const int32_t> table = step.block_tables[g];
    const int32_t num_blocks = (end + limits.block_size - 1) / limits.block_size;
    if (table.size() < static_cast<size_t>(num_blocks)) return bad_step("a block table is too short");
    const int32_t first_seen = group.window > 0 ? std::max(0, step.position - group.window + 1) : 0;
    for (int32_t b = first_seen / limits.block_size; b < num_blocks; ++b) {
      const int32_t block = table[static_cast<size_t>(b)];
      if (block < 0 || block >= group.capacity) return bad_step("a block that is needed is missing or out of range");
    }
  }
  return ok_status();
}

Status check_sequence_step(const StepLimits& limits, const SequenceStep& step) {
  const auto num_tokens = static_cast<int64_t>(step.tokens.size());
  if (num_tokens == 0) return bad_step("a sequence without tokens");
  if (step.position < 0 || step.position + num_tokens > limits.max_model_len) {
    return bad_step(fmt::format("positions {} to {} exceed the context of {} tokens", step.position,
                                step.position + num_tokens, limits.max_model_len));
  }
  if (step.want == Want::verify &&
      (step.num_draft < 0 || step.num_draft >= num_tokens || step.num_draft >= limits.max_rows_to_verify)) {
    return bad_step("drafts exceed the tokens of the step");
  }
  if ((step.want == Want::sample || step.want == Want::verify) && step.sampling.params == nullptr) {
    return bad_step("no sampling parameters");
  }
  if (step.prompt_targets.size() > step.tokens.size()) return bad_step("more prompt targets than tokens");
  for (const Token target : step.prompt_targets) {
    if (target < 0 || target >= limits.vocab_size) return bad_step("a prompt target outside the vocabulary");
  }
  return check_tables(limits, step);
}

}  // namespace

Error bad_step(std::string_view problem) {
  return make_error(ErrorCode::invalid_argument, fmt::format("a malformed step: {}", problem));
}

Status check_step(const StepLimits& limits, const StepBatch& batch) {
  if (limits.groups.empty()) return bad_step("the runner is not bound to a cache");
  if (batch.sequences.empty() || batch.sequences.size() > static_cast<size_t>(limits.max_num_seqs)) {
    return bad_step(fmt::format("{} sequences; 1 to {} fit", batch.sequences.size(), limits.max_num_seqs));
  }
  size_t num_tokens = 0;
  for (const SequenceStep& step : batch.sequences) {
    RETURN_IF_ERROR(check_sequence_step(limits, step));
    num_tokens += step.tokens.size();
  }
  if (num_tokens > static_cast<size_t>(limits.max_num_tokens)) {
    return bad_step(fmt::format("{} tokens; {} fit", num_tokens, limits.max_num_tokens));
  }
  return ok_status();
}

}  // namespace inferneo
