#include "engine/step_batch.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr Token kNotOnHostYet[1] = {0};

// The one token that is certain, and the drafts, one after the other in `storage`, whose capacity suffices.
std::span<const Token> with_drafts(const ScheduledSequence& scheduled, std::vector<Token>& storage) {
  const Sequence& sequence = *scheduled.sequence;
  const size_t begin = storage.size();
  storage.push_back(sequence.tokens.back());
  storage.insert(storage.end(), sequence.drafts.begin(), sequence.drafts.begin() + scheduled.num_draft);
  return std::span<const Token>(storage).subspan(begin);
}

SequenceStep make_row(const ScheduledSequence& scheduled, std::vector<Token>& draft_storage) {
  const Sequence& sequence = *scheduled.sequence;
  const RequestState& request = *sequence.request;
  const std::span<const Token> tokens(sequence.tokens);
  const auto prompt_size = static_cast<size_t>(sequence.prompt_size);
  const auto begin = static_cast<size_t>(scheduled.position);
  const auto end = begin + static_cast<size_t>(scheduled.num_tokens);

  SequenceStep step;
  step.sequence_id = sequence.id;
  step.position = scheduled.position;
  step.want = scheduled.sample ? Want::sample : Want::nothing;
  if (scheduled.num_draft > 0) {
    step.tokens = with_drafts(scheduled, draft_storage);
    step.want = Want::verify;
    step.num_draft = scheduled.num_draft;
  } else if (end <= tokens.size()) {
    step.tokens = tokens.subspan(begin, end - begin);
  } else {  // running ahead: one token, sampled by a step that is still in flight
    step.tokens = kNotOnHostYet;
    step.last_token = TokenRef{0, sequence.last_ticket, sequence.last_row};
  }
  step.sampling.params = &request.request.sampling;
  step.sampling.prompt = tokens.first(prompt_size);
  step.sampling.output = tokens.subspan(prompt_size);
  step.sampling.seed = sequence.seed;
  if (scheduled.sample && sequence.grammar != nullptr) {
    step.sampling.allowed_mask = sequence.grammar->masks(scheduled.num_draft);
  }
  if (sequence.num_output() + sequence.num_pending < request.request.sampling.min_tokens) {
    step.sampling.banned = request.ending_tokens;
  }
  // Once there is output they have been delivered, and a preempted sequence only computes its cache anew.
  const bool wants_prompt = sequence.sample == 0 && sequence.num_output() == 0;
  if (wants_prompt && request.request.sampling.prompt_logprobs && begin + 1 < prompt_size) {
    step.prompt_targets = tokens.subspan(begin + 1, std::min(end + 1, prompt_size) - begin - 1);
    step.prompt_top_logprobs = *request.request.sampling.prompt_logprobs;
  }
  switch (request.request.sampling.prompt_rows) {  // nothing is ever sampled of it
    case PromptRows::none:
      break;
    case PromptRows::logits:
      step.want = Want::logits;
      break;
    case PromptRows::hidden:
      step.want = Want::hidden;
      break;
  }
  return step;
}

}  // namespace

std::unique_ptr<InFlightStep> build_step(const std::vector<ScheduledSequence>& rows,
                                         const std::vector<KvGroupConfig>& groups) {
  auto step = std::make_unique<InFlightStep>();
  step->rows = rows;
  size_t table_size = 0;
  size_t draft_size = 0;
  step->decodes_only = true;
  for (const ScheduledSequence& row : rows) {
    draft_size += static_cast<size_t>(row.num_draft) + 1;
    step->decodes_only = step->decodes_only && row.sample && row.num_tokens == 1;
    step->is_waited_for = step->is_waited_for || (row.num_draft > 0 && !row.sequence->needs_host_tokens);
    for (const std::vector<BlockId>& table : row.sequence->block_tables) table_size += table.size();
  }
  step->table_storage.reserve(table_size);  // spans point into all three: none may move from here on
  step->draft_storage.reserve(draft_size);
  step->tables.reserve(rows.size() * groups.size());
  step->batch.sequences.reserve(rows.size());
  step->batch.idle = !rows.empty() && rows.front().sequence->idle();  // steps are of one kind
  for (const ScheduledSequence& row : rows) {
    const size_t first_table = step->tables.size();
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::vector<BlockId>& table = row.sequence->block_tables[g];
      const size_t begin = step->table_storage.size();
      const int32_t first = first_needed_block(groups[g], row.position);
      step->table_storage.insert(step->table_storage.end(), static_cast<size_t>(first), kNoBlock);
      step->table_storage.insert(step->table_storage.end(), table.begin() + first, table.end());
      step->tables.emplace_back(step->table_storage.data() + begin, table.size());
    }
    SequenceStep sequence_step = make_row(row, step->draft_storage);
    sequence_step.block_tables = std::span(step->tables).subspan(first_table, groups.size());
    step->batch.sequences.push_back(sequence_step);
    step->num_tokens += row.num_tokens + row.num_draft;
  }
  return step;
}

}  // namespace inferneo
