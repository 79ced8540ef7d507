// The service over the model manager: one place where requests, text work, engines and metrics meet.
// Routing rules and A/B tests stand in front of it, in RoutedService.
//
// Thread-safe. Order of ends: the manager stops (and with it every engine) before the service ends, whose text pool
// still delivers the last events and starts the last requests; so the manager itself must outlive the service.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "experiments/outcomes.h"
#include "manager/manager_core.h"
#include "serving/generation.h"
#include "serving/inference_service.h"
#include "serving/text_pool.h"
#include "tensor/ledger.h"

namespace inferneo {

struct EngineServiceConfig {
  int text_threads = 1;
  size_t max_text_queue = 4096;
  Duration stall_limit = std::chrono::seconds(10);
  uint64_t seed = 0;                             // 0: drawn from the system
  std::optional<Duration> request_timeout = {};  // of requests, whatever longer one they ask for
};

class EngineService final : public InferenceService {
 public:
  EngineService(const EngineServiceConfig& config, ManagerCore& manager, const MemoryLedger& ledger, const Clock& clock,
                Admission* admission = nullptr);  // which outlives it

  std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) override;
  std::vector<ServedModel> models() const override;
  Result<ServedModel> model(const std::string& name) const override;
  std::optional<WaitOutlook> outlook(const std::string& model) const override;
  Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string& model) override;
  std::shared_ptr<GenerationHandle> embed(EmbedRequest request, EmbedCallback done) override;
  std::shared_ptr<GenerationHandle> infer(InferRequest request, InferCallback done) override;
  void with_graph(const std::string& model, GraphCallback callback) override;
  bool post_text_work(std::function<void()> work) override;
  void with_tokenizer(const std::string& model, TokenizerCallback callback) override;
  Status admission() const override;
  Status ready() const override;
  std::vector<MetricSample> metrics() const override;  // engine_numbers.cc
  ServerStats stats() const override;                  // the same

  // From here on requests are taken: the models that are to be there at the start are.
  void open();
  // Refuses new requests and lets the accepted ones end until `deadline`; returns true when all had ended by then.
  bool drain(TimePoint deadline);

 private:
  void with_lease(const std::string& model, std::function<void(const Result<ModelLease>&)> callback);
  std::shared_ptr<ModelMetrics> metrics_of(const std::string& model) const;
  uint64_t next_seed();
  Status starting_status() const;
  Status readiness(const std::vector<ModelStatus>& statuses) const;
  void forget_removed(const std::vector<ModelStatus>& statuses) const;
  void collect_server(const std::vector<ModelStatus>& statuses, std::vector<MetricSample>& out) const;
  void collect_engine(const ModelStatus& status, std::vector<MetricSample>& out) const;

  const EngineServiceConfig config_;
  ManagerCore& manager_;
  const MemoryLedger& ledger_;
  const Clock& clock_;
  mutable std::mutex metrics_mutex_;
  mutable std::map<std::string, std::shared_ptr<ModelMetrics>> metrics_;  // bounded by the registered models
  mutable uint64_t ended_of_removed_ = 0;                                 // guarded by metrics_mutex_
  std::array<std::atomic<uint64_t>, kNumErrorCodes> refused_{};           // by ErrorCode
  std::atomic<uint64_t> next_request_{1};
  std::atomic<uint64_t> next_seed_;
  enum class Phase { starting, open, draining };
  std::atomic<Phase> phase_{Phase::starting};
  const TimePoint started_;
  GenerationContext context_;
  TextPool pool_;  // the last: its end runs what is queued, which uses all of them
};

}  // namespace inferneo
