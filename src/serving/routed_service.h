// The service with rules, tests and shadows in front of it: each request gets its route, its arm and its fallbacks,
// what came of it is told to the test that it was part of, and the shadows that want it get their copies.
//
// Thread-safe. While there are no rules and no tests a request goes straight on; else it is routed on a text thread,
// since a rule may count its tokens. Sinks are called as InferenceService promises, on_route before everything else.
// Order of ends: as EngineService, which this wraps; `inner`, `traffic` and `models` outlive it and its requests.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "serving/feedback_book.h"
#include "serving/inference_service.h"
#include "serving/manager_models.h"
#include "serving/shadow_book.h"
#include "serving/traffic.h"
#include "tracing/tracer.h"

namespace inferneo {

class RoutedService final : public InferenceService {
 public:
  // What the parts of this service share with its requests. `feedback` outlives them, as the others do.
  struct Context {
    InferenceService& inner;
    Traffic& traffic;
    ManagerModels& models;
    ShadowBook& shadows;
    const Clock& clock;
    FeedbackBook& feedback;
    Admission* admission = nullptr;  // none: nobody is limited
    const Tracer* tracer = nullptr;  // whose counts are among the metrics; none: there are no traces
  };
  explicit RoutedService(const Context& context);

  std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) override;
  Result<std::shared_ptr<AdmissionTicket>> admit(TenantId tenant) override;
  RateLimits rate_limits(TenantId tenant) const override;
  std::shared_ptr<GenerationHandle> embed(EmbedRequest request, EmbedCallback done) override;
  std::shared_ptr<GenerationHandle> infer(InferRequest request, InferCallback done) override;
  void with_graph(const std::string& model, GraphCallback callback) override {
    context_.inner.with_graph(model, std::move(callback));
  }
  bool wants_traits() const override { return context_.traffic.has_any(); }
  // What would become of it, without doing it. On the calling thread.
  RouteExplanation explain(const GenerateRequest& request) const;

  std::vector<ServedModel> models() const override { return context_.inner.models(); }
  Result<ServedModel> model(const std::string& name) const override { return context_.inner.model(name); }
  std::optional<WaitOutlook> outlook(const std::string& model) const override { return context_.inner.outlook(model); }
  Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string& model) override {
    return context_.inner.tokenizer(model);
  }
  bool post_text_work(std::function<void()> work) override { return context_.inner.post_text_work(std::move(work)); }
  void with_tokenizer(const std::string& model, TokenizerCallback callback) override {
    context_.inner.with_tokenizer(model, std::move(callback));
  }
  Result<FeedbackReceipt> record_feedback(const std::string& request_id, double score) override;
  Status admission() const override { return context_.inner.admission(); }
  Status ready() const override { return context_.inner.ready(); }
  std::vector<MetricSample> metrics() const override;  // routed_numbers.cc
  ServerStats stats() const override;                  // the same

 private:
  // An embedding or tensors; `seen`: by a rule.
  template <typename Request, typename Callback>
  std::shared_ptr<GenerationHandle> call(Request request, Callback done, bool seen);

  Context context_;
};

}  // namespace inferneo
