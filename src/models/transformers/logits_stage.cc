#include "models/transformers/logits_stage.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/sampling/step_rows.h"

namespace inferneo {

LogitsStage::LogitsStage(int32_t vocab_size, int32_t hidden_size, int num_threads)
    : vocab_size_(static_cast<size_t>(vocab_size)), hidden_size_(static_cast<size_t>(hidden_size)) {
  for (int i = 0; i < num_threads; ++i) samplers_.push_back(std::make_unique<Sampler>());
}

std::vector<LogitsStage::Job> LogitsStage::plan(const StepBatch& batch) const {
  std::vector<Job> jobs;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const SequenceStep& step = batch.sequences[s];
    const auto num_tokens = static_cast<int32_t>(step.tokens.size());
    const auto sequence = static_cast<int32_t>(s);
    const int32_t chosen = rows_chosen_from(step);
    const int32_t rows = step.want == Want::logits ? num_tokens : static_cast<int32_t>(step.prompt_targets.size());
    for (int32_t t = 0; t < std::min(rows, num_tokens - chosen); ++t) jobs.push_back({sequence, t, 1, false, 0, {}});
    if (chosen > 0) jobs.push_back({sequence, num_tokens - chosen, chosen, true, 0, {}});
  }
  return jobs;
}

void LogitsStage::prepare(const StepBatch& batch, StepResult& result) const {
  result.sequences.resize(batch.sequences.size());
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    prepare_rows(batch.sequences[s], vocab_size_, result.sequences[s]);
  }
}

StepResult LogitsStage::run(kernels::Context& context, Forward& forward, const StepBatch& batch,
                            const std::vector<int32_t>& first_rows) {
  kernels::enter_phase(context, kernels::Phase::sampling);
  StepResult result;
  prepare(batch, result);
  std::vector<Job> jobs = plan(batch);
  for (size_t first = 0; first < jobs.size();) {
    size_t last = first;
    int32_t rows = 0;
    while (last < jobs.size() && rows + jobs[last].num_rows <= kMaxLogitRows) {
      jobs[last].piece_row = rows;
      rows += jobs[last++].num_rows;
    }
    run_piece(context, forward, batch, first_rows, std::span(jobs).subspan(first, last - first), result);
    first = last;
  }
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    if (batch.sequences[s].want != Want::hidden) continue;
    read_hidden(context, forward, batch.sequences[s], first_rows[s], result.sequences[s]);
  }
  for (Job& job : jobs) {
    SequenceResult& sequence = result.sequences[static_cast<size_t>(job.sequence)];
    if (!job.status.ok() && !sequence.error) sequence.error = std::move(job.status).error();
  }
  return result;
}

void LogitsStage::run_piece(kernels::Context& context, Forward& forward, const StepBatch& batch,
                            const std::vector<int32_t>& first_rows, std::span<Job> jobs, StepResult& result) {
  std::vector<int32_t> rows;
  for (const Job& job : jobs) {
    const int32_t base = first_rows[static_cast<size_t>(job.sequence)] + job.token;
    for (int32_t i = 0; i < job.num_rows; ++i) rows.push_back(base + i);
  }
  const std::span<float> logits = forward.logits(context, rows);
  kernels::enter_phase(context, kernels::Phase::sampling);
  kernels::count_cost(context, kernels::LogitsSummaryArgs{.num_rows = static_cast<int64_t>(rows.size()),
                                                          .dim = static_cast<int64_t>(vocab_size_)});
  const auto finish_job = [&](int64_t index, int thread) {
    Job& job = jobs[static_cast<size_t>(index)];
    const auto sequence = static_cast<size_t>(job.sequence);
    job.status = finish(batch.sequences[sequence], job,
                        logits.subspan(static_cast<size_t>(job.piece_row) * vocab_size_,
                                       static_cast<size_t>(job.num_rows) * vocab_size_),
                        *samplers_[static_cast<size_t>(thread)], result.sequences[sequence]);
  };
  if (jobs.size() == 1) {
    finish_job(0, 0);
  } else {
    context.session.for_chunks(static_cast<int64_t>(jobs.size()), finish_job);
  }
}

void LogitsStage::read_hidden(kernels::Context& context, Forward& forward, const SequenceStep& step, int32_t first_row,
                              SequenceResult& result) const {
  const auto num_tokens = static_cast<int32_t>(step.tokens.size());
  result.hidden.reserve(step.tokens.size() * hidden_size_);
  std::vector<int32_t> rows;
  for (int32_t first = 0; first < num_tokens; first += kMaxLogitRows) {
    rows.resize(static_cast<size_t>(std::min(kMaxLogitRows, num_tokens - first)));
    std::iota(rows.begin(), rows.end(), first_row + first);
    const std::span<float> piece = forward.hidden(context, rows);
    result.hidden.insert(result.hidden.end(), piece.begin(), piece.end());
  }
  if (std::ranges::any_of(result.hidden, [](float x) { return std::isnan(x); })) {
    result.error = make_error(ErrorCode::numeric, "the model's hidden states are not numbers");
  }
}

// Jobs of one sequence write to different places of its result: rows of their own, and one job alone chooses tokens.
Status LogitsStage::finish(const SequenceStep& step, const Job& job, std::span<float> rows, Sampler& sampler,
                           SequenceResult& result) const {
  RETURN_IF_ERROR(take_rows(step, job.token, rows, vocab_size_, sampler, result));
  return job.chooses ? choose_tokens(step, rows, vocab_size_, sampler, result) : ok_status();
}

}  // namespace inferneo
