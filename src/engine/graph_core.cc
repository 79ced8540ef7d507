#include "engine/graph_core.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "base/log.h"
#include "engine/tensor_check.h"

namespace inferneo {
namespace {

Error goes(const std::string& model) {
  return make_error(ErrorCode::unavailable, fmt::format("model {} is shutting down", model));
}

void count_step(EngineStats& stats, size_t tokens) {
  const auto& bounds = EngineStats::kIterationBounds;
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), tokens,
                                       [](int32_t bound, size_t n) { return static_cast<size_t>(bound) < n; });
  ++stats.iteration_tokens[static_cast<size_t>(bucket - bounds.begin())];
  stats.iteration_tokens_sum += tokens;
  ++stats.steps;
}

}  // namespace

void GraphCore::Job::finish(Result<std::vector<NamedTensor>> tensors) {
  const TensorsDone done = std::exchange(tensors_done, nullptr);
  if (done) done(std::move(tensors));
}

void GraphCore::Job::fail(const Error& error) {
  if (!is_text()) return finish(error);
  const VectorsDone done = std::exchange(vectors_done, nullptr);
  if (done) done(error);
}

GraphCore::GraphCore(GraphCoreConfig config, std::unique_ptr<GraphRunner> runner, const Clock& clock)
    : config_(std::move(config)), runner_(std::move(runner)), clock_(clock) {
  stats_.last_progress = clock_.now();
  thread_ = std::thread([this] { run(); });
}

GraphCore::~GraphCore() { stop(); }

// ---- from outside

Result<GraphCore::JobId> GraphCore::infer(TensorCall call, std::optional<TimePoint> deadline, TensorsDone done) {
  RETURN_IF_ERROR(check_call(spec(), call));
  auto job = std::make_shared<Job>();
  job->deadline = deadline;
  job->call = std::move(call);
  job->tensors_done = std::move(done);
  return enqueue(std::move(job));
}

Status GraphCore::check_texts(const std::vector<std::vector<Token>>& texts) const {
  if (spec().kind != ModelKind::embedding) {
    return make_error(ErrorCode::invalid_argument, fmt::format("model {} gives no embeddings", config_.model), "model");
  }
  if (texts.empty()) return make_error(ErrorCode::invalid_argument, "there is no text", "input");
  const auto longest = static_cast<size_t>(spec().max_tokens);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<Token>& text = texts[i];
    const std::string name = texts.size() == 1 ? "input" : fmt::format("input[{}]", i);
    if (text.empty()) return make_error(ErrorCode::invalid_argument, fmt::format("{} has no tokens", name), "input");
    if (text.size() > longest) {
      return make_error(ErrorCode::context_too_long,
                        fmt::format("{} has {} tokens, and the model's context is {}", name, text.size(), longest),
                        "input");
    }
    const auto outside = [&](Token token) {
      return token < 0 || (spec().vocab_size > 0 && token >= spec().vocab_size);
    };
    if (std::any_of(text.begin(), text.end(), outside)) {
      return make_error(ErrorCode::invalid_argument, fmt::format("{} holds a token outside the vocabulary", name),
                        "input");
    }
  }
  return ok_status();
}

Result<GraphCore::JobId> GraphCore::embed(std::vector<std::vector<Token>> texts, std::optional<TimePoint> deadline,
                                          VectorsDone done) {
  RETURN_IF_ERROR(check_texts(texts));
  auto job = std::make_shared<Job>();
  job->deadline = deadline;
  job->texts = std::move(texts);
  job->order.resize(job->texts.size());
  std::iota(job->order.begin(), job->order.end(), 0U);
  std::stable_sort(job->order.begin(), job->order.end(),
                   [&](uint32_t a, uint32_t b) { return job->texts[a].size() > job->texts[b].size(); });
  for (const std::vector<Token>& text : job->texts) job->tokens += text.size();
  job->vectors.resize(job->texts.size() * static_cast<size_t>(spec().dimensions));
  job->vectors_done = std::move(done);
  return enqueue(std::move(job));
}

Result<GraphCore::JobId> GraphCore::enqueue(JobPointer job) {
  const std::lock_guard lock(mutex_);
  if (stats_.state == EngineState::failed) {
    return make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", config_.model, stats_.failure));
  }
  if (stats_.state != EngineState::running) return goes(config_.model);
  if (queue_.size() >= static_cast<size_t>(config_.max_queued_requests)) {
    ++stats_.refused[static_cast<size_t>(QueueRefusal::requests)];
    return make_error(ErrorCode::queue_full, fmt::format("{} requests wait for model {} already; try again later",
                                                         queue_.size(), config_.model));
  }
  if (queue_.empty() && in_run_.empty()) stats_.last_progress = clock_.now();
  job->id = ++last_id_;
  const JobId id = job->id;
  queue_.push_back(std::move(job));
  changed_.notify_all();
  return id;
}

void GraphCore::cancel(JobId id) {
  JobPointer waiting;
  {
    const std::lock_guard lock(mutex_);
    for (const JobPointer& job : in_run_) {
      if (job->id != id) continue;
      job->cancelled = true;  // the end of its run ends it
      return;
    }
    const auto found = std::find_if(queue_.begin(), queue_.end(), [&](const JobPointer& job) { return job->id == id; });
    if (found == queue_.end()) return;
    waiting = *found;
    queue_.erase(found);
    ++stats_.finished_requests;
    if (queue_.empty() && in_run_.empty()) idle_.notify_all();
  }
  waiting->fail(make_error(ErrorCode::cancelled, "the request was cancelled"));
}

void GraphCore::drain(TimePoint deadline) {
  const std::lock_guard lock(mutex_);
  if (stats_.state == EngineState::running) stats_.state = EngineState::draining;
  drain_at_ = std::min(drain_at_.value_or(deadline), deadline);
  changed_.notify_all();
}

bool GraphCore::wait_drained(Duration timeout) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, timeout, [this] { return queue_.empty() && in_run_.empty(); });
}

// Those that wait, but for what is in the run in progress, whose end ends them.
std::vector<GraphCore::JobPointer> GraphCore::take_waiting_locked() {
  std::vector<JobPointer> jobs;
  for (JobPointer& job : queue_) {
    if (std::find(in_run_.begin(), in_run_.end(), job) == in_run_.end()) jobs.push_back(std::move(job));
  }
  queue_.clear();
  stats_.finished_requests += jobs.size();
  return jobs;
}

void GraphCore::stop() {
  std::vector<JobPointer> waiting;
  {
    const std::lock_guard lock(mutex_);
    stats_.state = EngineState::stopped;
    waiting = take_waiting_locked();
    for (const JobPointer& job : in_run_) job->cancelled = true;
    changed_.notify_all();
  }
  runner_->interrupt();
  for (const JobPointer& job : waiting) job->fail(goes(config_.model));
  if (thread_.joinable()) thread_.join();
}

Status GraphCore::readiness(Duration stall_limit) const {
  const std::lock_guard lock(mutex_);
  if (stats_.state == EngineState::failed) {
    return make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", config_.model, stats_.failure));
  }
  if (stats_.state != EngineState::running) {
    return make_error(ErrorCode::unavailable, fmt::format("model {} is draining", config_.model));
  }
  if (queue_.empty() && in_run_.empty()) return ok_status();
  const Duration stalled = clock_.now() - stats_.last_progress;
  if (stalled <= stall_limit) return ok_status();
  return make_error(ErrorCode::unavailable,
                    fmt::format("model {} has not finished a run for {:.1f} s", config_.model, to_seconds(stalled)));
}

EngineStats GraphCore::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.running = static_cast<int32_t>(in_run_.size());
  stats.waiting = static_cast<int32_t>(queue_.size());
  return stats;
}

// ---- the core's thread

// Jobs that are to be computed no more, with the reason.
std::vector<std::pair<GraphCore::JobPointer, Error>> GraphCore::take_ended() {
  const TimePoint now = clock_.now();
  const bool drained = drain_at_ && now >= *drain_at_;
  std::vector<std::pair<JobPointer, Error>> ended;
  std::erase_if(queue_, [&](const JobPointer& job) {
    if (job->cancelled) {
      ended.emplace_back(job, make_error(ErrorCode::cancelled, "the request was cancelled"));
    } else if (drained) {
      ended.emplace_back(job, goes(config_.model));
    } else if (job->deadline && now >= *job->deadline) {
      ended.emplace_back(job, make_error(ErrorCode::deadline_exceeded, "the request took longer than it may"));
    } else {
      return false;
    }
    return true;
  });
  stats_.finished_requests += ended.size();
  return ended;
}

// Texts for one run, of the jobs at the front of the line; those that have more go to its end.
std::vector<GraphCore::Row> GraphCore::take_batch() {
  std::vector<Row> rows;
  std::vector<JobPointer> with_more;
  size_t longest = 0;
  bool full = false;
  while (!full && !queue_.empty() && queue_.front()->is_text()) {
    const JobPointer job = queue_.front();
    const size_t before = rows.size();
    while (job->next < job->order.size()) {
      const uint32_t text = job->order[job->next];
      const size_t width = std::max(longest, job->texts[text].size());
      full = rows.size() >= static_cast<size_t>(config_.max_batch_texts) ||
             (!rows.empty() && width * (rows.size() + 1) > static_cast<size_t>(config_.max_batch_tokens));
      if (full) break;
      longest = width;
      rows.push_back({job, text});
      ++job->next;
    }
    if (rows.size() == before) break;  // nothing of this one: it stays at the front
    in_run_.push_back(job);
    queue_.pop_front();
    if (job->next < job->order.size()) with_more.push_back(job);
  }
  // Kept in line while they are computed, so that whoever comes meanwhile is behind them.
  for (JobPointer& job : with_more) queue_.push_back(std::move(job));
  return rows;
}

void GraphCore::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !queue_.empty() || stats_.state == EngineState::stopped; });
    if (stats_.state == EngineState::stopped) return;
    if (auto ended = take_ended(); !ended.empty()) {
      lock.unlock();
      for (const auto& [job, error] : ended) job->fail(error);
      ended.clear();
      lock.lock();
      if (queue_.empty() && in_run_.empty()) idle_.notify_all();
      continue;
    }
    if (queue_.front()->is_text()) {
      std::vector<Row> rows = take_batch();
      lock.unlock();
      run_batch(rows);
      rows.clear();
    } else {
      JobPointer job = std::move(queue_.front());
      queue_.pop_front();
      in_run_.push_back(job);
      lock.unlock();
      run_tensors(job);
      job.reset();
    }
    lock.lock();
  }
}

void GraphCore::end_run(size_t tokens) {
  const std::lock_guard lock(mutex_);
  count_step(stats_, tokens);
  stats_.last_progress = clock_.now();
}

// After a run: those of `jobs` that are done, or have failed, end. `outputs`: of a call of tensors.
void GraphCore::settle(const std::vector<JobPointer>& jobs, const std::optional<Error>& error,
                       std::vector<NamedTensor> outputs) {
  std::vector<std::pair<JobPointer, std::optional<Error>>> ended;
  {
    const std::lock_guard lock(mutex_);
    for (const JobPointer& job : jobs) {
      std::erase(in_run_, job);
      std::optional<Error> reason = error;
      if (job->cancelled) {
        reason = stats_.state == EngineState::stopped ? goes(config_.model)
                                                      : make_error(ErrorCode::cancelled, "the request was cancelled");
      }
      if (!reason && job->is_text() && job->next < job->order.size()) continue;
      std::erase(queue_, job);
      ++stats_.finished_requests;
      if (!reason) stats_.prompt_tokens += job->tokens;
      ended.emplace_back(job, std::move(reason));
    }
    if (queue_.empty() && in_run_.empty()) idle_.notify_all();
  }
  for (auto& [job, reason] : ended) {
    if (reason) {
      job->fail(*reason);
    } else if (const VectorsDone done = std::exchange(job->vectors_done, nullptr)) {
      done(std::move(job->vectors));
    } else {
      job->finish(std::exchange(outputs, {}));
    }
  }
}

void GraphCore::run_tensors(const JobPointer& job) {
  std::optional<Duration> limit;
  if (job->deadline) limit = std::max(Duration{0}, *job->deadline - clock_.now());
  Result<std::vector<NamedTensor>> outputs = runner_->run(job->call, limit);
  end_run(0);
  if (!outputs.ok()) {
    const Error error = std::move(outputs).error();
    if (error.code == ErrorCode::io_error) fail_core(error);
    return settle({job}, error);
  }
  settle({job}, std::nullopt, std::move(outputs).value());
}

// The vectors go to their jobs. False: the run failed.
bool GraphCore::compute_rows(std::span<const Row> rows, std::optional<Error>& error) {
  std::vector<std::span<const Token>> texts;
  size_t tokens = 0;
  for (const Row& row : rows) {
    texts.emplace_back(row.job->texts[row.text]);
    tokens += texts.back().size();
  }
  Result<std::vector<float>> vectors = runner_->embed(texts);
  end_run(tokens);
  const auto width = static_cast<size_t>(spec().dimensions);
  if (vectors.ok() && vectors->size() != rows.size() * width) {
    vectors = make_error(ErrorCode::internal, "the runner gave another number of vectors than there are texts");
  }
  if (!vectors.ok()) {
    error = std::move(vectors).error();
    return false;
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(vectors->begin() + static_cast<std::ptrdiff_t>(i * width), width,
                rows[i].job->vectors.begin() + static_cast<std::ptrdiff_t>(rows[i].text * width));
  }
  return true;
}

void GraphCore::run_batch(const std::vector<Row>& rows) {
  std::vector<JobPointer> jobs;
  for (const Row& row : rows) {
    if (jobs.empty() || jobs.back() != row.job) jobs.push_back(row.job);
  }
  std::optional<Error> error;
  if (compute_rows(rows, error)) return settle(jobs, std::nullopt);
  if (error->code == ErrorCode::io_error) fail_core(*error);
  const bool theirs = error->code != ErrorCode::io_error && error->code != ErrorCode::unavailable;
  if (jobs.size() == 1 || !theirs) return settle(jobs, error);
  // Whose text it was is found out by computing each request's alone: the others lose nothing.
  size_t at = 0;
  for (const JobPointer& job : jobs) {
    size_t end = at;
    while (end < rows.size() && rows[end].job == job) ++end;
    std::optional<Error> own;
    (void)compute_rows(std::span(rows).subspan(at, end - at), own);
    settle({job}, own);
    at = end;
  }
}

void GraphCore::fail_core(const Error& error) {
  std::vector<JobPointer> waiting;
  {
    const std::lock_guard lock(mutex_);
    if (stats_.state == EngineState::stopped) return;
    stats_.state = EngineState::failed;
    stats_.failure = error.message;
    waiting = take_waiting_locked();
  }
  log_error("model {} has failed: {}", config_.model, error.message);
  for (const JobPointer& job : waiting) job->fail(error);
}

}  // namespace inferneo
