// Turns a schedule into the batch that a runner sees, and owns what the batch points at until it is collected.
//
// Block tables are copied: the tables of a sequence change (blocks fall out of the window, new ones are appended) while
// steps are in flight. Token spans point into the sequences, whose storage never moves.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/scheduler.h"
#include "models/model_runner.h"

namespace inferneo {

struct InFlightStep {
  Ticket ticket = 0;
  TimePoint began{};
  Duration drafting{0};  // that a draft model took before it
  StepBatch batch;
  std::vector<ScheduledSequence> rows;  // parallel to batch.sequences
  int32_t num_tokens = 0;               // drafts included
  bool decodes_only = false;
  bool collected = false;                      // its ticket is no longer open
  std::optional<TimePoint> device_idle_since;  // nothing was in flight when it was submitted; none: or not known
  // It has drafts of a sequence that would run ahead. Behind it the rest of its batch would go on alone, in a step that
  // reads all weights as well.
  bool is_waited_for = false;
  bool followed = false;  // another one was submitted before it was collected

  std::vector<Token> draft_storage;  // of each row with drafts: its token, then they
  std::vector<BlockId> table_storage;
  std::vector<std::span<const int32_t>> tables;  // [rows * groups]
};

// Grammar masks have been filled, of the drafts as well; sequences still stand as they did before this step was
// scheduled, but for num_computed.
std::unique_ptr<InFlightStep> build_step(const std::vector<ScheduledSequence>& rows,
                                         const std::vector<KvGroupConfig>& groups);

}  // namespace inferneo
