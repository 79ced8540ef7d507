// One loaded graph's queue: one thread that runs call after call, and puts texts of several requests into one run.
// What EngineCore is to models that generate.
//
// Order: calls of tensors one by one, in the order of arrival. Texts to be embedded go together, up to max_batch_texts
// and max_batch_tokens with what fills the shorter ones up; a request that has more of them goes to the end of the line
// after each run, so that a long one delays a short one by a run.
// Ownership: the core owns the runner and every accepted job. The clock outlives it.
// Threads: every public function may be called from any thread; stop(), the destructor and wait_drained() wait, so they
// must not be called from a callback. Callbacks run on the core's thread (on that of stop() for what it ends) without a
// lock held, once for each accepted job; they must neither block nor throw.
// Errors: see each function. A runner's io_error fails the core: everything ends with it, and readiness() says so.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine_core.h"
#include "models/graph_runner.h"

namespace inferneo {

struct GraphCoreConfig {
  std::string model = "model";         // name in messages
  int32_t max_queued_requests = 2048;  // accepted and not begun
  int32_t max_batch_texts = 64;
  int32_t max_batch_tokens = 8192;  // texts times the longest of them; a single text may be longer
};

class GraphCore {
 public:
  using JobId = uint64_t;
  using TensorsDone = std::function<void(Result<std::vector<NamedTensor>>)>;
  using VectorsDone = std::function<void(Result<std::vector<float>>)>;  // [texts, dimensions]

  GraphCore(GraphCoreConfig config, std::unique_ptr<GraphRunner> runner, const Clock& clock);
  ~GraphCore();  // stop()
  GraphCore(const GraphCore&) = delete;
  GraphCore& operator=(const GraphCore&) = delete;

  const GraphSpec& spec() const { return runner_->spec(); }

  // Accepted, or one of: invalid_argument (check_call(); a text without tokens or with one outside the vocabulary; a
  // model that embeds nothing), context_too_long, queue_full, unavailable (draining, stopped), internal (failed).
  Result<JobId> infer(TensorCall call, std::optional<TimePoint> deadline, TensorsDone done);
  Result<JobId> embed(std::vector<std::vector<Token>> texts, std::optional<TimePoint> deadline, VectorsDone done);
  // The job ends with cancelled: at once when nothing of it is being computed, else after that run.
  void cancel(JobId id);

  // Refuses new jobs from now on; what has not ended at the deadline ends with unavailable after the run in progress.
  void drain(TimePoint deadline);
  bool wait_drained(Duration timeout);  // true when no job is live
  void stop();                          // ends the run in progress, and every job with unavailable

  Status readiness(Duration stall_limit) const;
  EngineStats stats() const;  // of requests, runs (as steps) and tokens

 private:
  struct Job {
    JobId id = 0;
    std::optional<TimePoint> deadline;
    bool cancelled = false;  // guarded by the core's mutex
    // Tensors.
    TensorCall call;
    TensorsDone tensors_done;
    // Texts: those from `next` on, in `order` (the longest first), are not computed yet.
    std::vector<std::vector<Token>> texts;
    std::vector<uint32_t> order;
    size_t next = 0;
    size_t tokens = 0;
    std::vector<float> vectors;
    VectorsDone vectors_done;

    bool is_text() const { return vectors_done != nullptr; }
    void finish(Result<std::vector<NamedTensor>> tensors);
    void fail(const Error& error);
  };
  using JobPointer = std::shared_ptr<Job>;
  struct Row {
    JobPointer job;
    uint32_t text = 0;
  };

  Result<JobId> enqueue(JobPointer job);
  Status check_texts(const std::vector<std::vector<Token>>& texts) const;
  std::vector<std::pair<JobPointer, Error>> take_ended();
  std::vector<Row> take_batch();
  void run();
  void run_tensors(const JobPointer& job);
  void run_batch(const std::vector<Row>& rows);
  bool compute_rows(std::span<const Row> rows, std::optional<Error>& error);
  void settle(const std::vector<JobPointer>& jobs, const std::optional<Error>& error,
              std::vector<NamedTensor> outputs = {});
  void end_run(size_t tokens);
  void fail_core(const Error& error);
  std::vector<JobPointer> take_waiting_locked();

  const GraphCoreConfig config_;
  const std::unique_ptr<GraphRunner> runner_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::condition_variable idle_;
  std::deque<JobPointer> queue_;
  std::vector<JobPointer> in_run_;
  JobId last_id_ = 0;
  EngineStats stats_;
  std::optional<TimePoint> drain_at_;
  std::thread thread_;  // the last: it uses all of them
};

}  // namespace inferneo
