// What a scrape of /metrics and a look at /stats cost with many models, each with traffic on every series.
//   scrape_bench [MODELS [REPETITIONS]]     default 200 50
// The engine service as it serves, on scripted engines; samples are gathered and written as the route does it, without
// the socket. Processor time of this thread.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "engine/scripted_runner.h"
#include "server/exposition.h"
#include "server/stats_routes.h"
#include "serving/engine_service.h"
#include "unit/serving/byte_tokenizer.h"

namespace inferneo {
namespace {

double cpu_millis() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

class Loader final : public ModelLoader {
 public:
  Loader(MemoryLedger& ledger, const Clock& clock) : ledger_(ledger), clock_(clock) {}
  Result<size_t> estimate(const ModelRecord&) override { return 0; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport&) override {
    Script script;
    script.vocab_size = 257;
    script.eos_token_ids = {ByteTokenizer::kEos};
    script.next_token = [](const ScriptedToken& at) -> Token { return 'a' + at.output_index % 26; };
    EngineCoreConfig config;
    config.model = record.id.text();
    config.max_kv_bytes = size_t{1} << 20;
    ASSIGN_OR_RETURN(auto core,
                     EngineCore::create(config, std::make_unique<ScriptedRunner>(std::move(script)), ledger_, clock_));
    auto model = std::make_shared<LoadedModel>();
    model->id = record.id.text();
    model->core = std::move(core);
    model->spec = model->core->model_spec();
    model->max_model_len = model->core->max_model_len();
    model->tokenizer = std::make_shared<ByteTokenizer>();
    return model;
  }

 private:
  MemoryLedger& ledger_;
  const Clock& clock_;
};

class Sink final : public OutputSink {
 public:
  void on_delta(OutputDelta) override {}
  void on_done(GenerateOutcome outcome) override {
    const std::lock_guard lock(mutex_);
    failed_ = outcome.error.has_value();
    done_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return !failed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  bool failed_ = false;
};

template <typename Work>
double median_millis(int repetitions, Work work) {
  std::vector<double> millis;
  for (int i = 0; i < repetitions; ++i) {
    const double start = cpu_millis();
    work();
    millis.push_back(cpu_millis() - start);
  }
  std::sort(millis.begin(), millis.end());
  return millis[millis.size() / 2];
}

int run(int num_models, int repetitions) {
  const SteadyClock clock;
  MemoryLedger ledger(size_t{64} << 30);
  ManagerCore manager(std::make_unique<Loader>(ledger, clock), ledger, clock);
  EngineServiceConfig config;
  config.text_threads = 2;
  EngineService service(config, manager, ledger, clock);
  service.open();
  for (int i = 0; i < num_models; ++i) {
    const std::string name = fmt::format("organisation/a-model-of-usual-length-{}", i);
    if (!manager.register_model({.name = name, .path = "script"}).ok()) return 1;
    for (const int samples : {1, 2}) {
      GenerateRequest request;
      request.model = name;
      request.prompt = std::string("prompt");
      request.sampling.max_tokens = 8;
      request.sampling.n = samples;
      const auto sink = std::make_shared<Sink>();
      service.generate(std::move(request), sink);
      if (!sink->wait()) return 1;
    }
  }
  std::string text;
  std::vector<MetricSample> samples;
  const double gather = median_millis(repetitions, [&] { samples = service.metrics(); });
  const double write = median_millis(repetitions, [&] { text = render_metrics(samples, metrics_catalogue()); });
  size_t written = 0;
  const double stats = median_millis(repetitions, [&] { written += stats_json(service.stats()).size(); });
  if (written == 0) return 1;
  fmt::print("{} models: {} lines, {:.1f} MB; gather {:.2f} ms + write {:.2f} ms = {:.2f} ms; stats {:.2f} ms\n",
             num_models, std::ranges::count(text, '\n'), static_cast<double>(text.size()) / 1e6, gather, write,
             gather + write, stats);
  manager.stop();
  return 0;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  const auto number = [&](int at, int otherwise) { return argc > at ? std::atoi(argv[at]) : otherwise; };
  return inferneo::run(number(1, 200), number(2, 50));
}
