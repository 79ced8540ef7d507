#include "app/sleeping_model.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "base/system.h"

namespace inferneo {
namespace {

class SleepingEngineModel final : public SleepingModel {
 public:
  SleepingEngineModel(ModelShell shell, size_t sleep_bytes, SleepingEngine engine, MemoryLedger& ledger,
                      const Clock& clock)
      : shell_(std::move(shell)),
        sleep_bytes_(sleep_bytes),
        engine_(std::move(engine)),
        ledger_(ledger),
        clock_(clock) {}

  Result<std::shared_ptr<LoadedModel>> wake() override {
    auto model = std::make_shared<LoadedModel>();
    static_cast<ModelShell&>(*model) = shell_;
    model->sleep_bytes = sleep_bytes_;
    ASSIGN_OR_RETURN(model->core, EngineCore::wake(engine_, ledger_, clock_));
    return model;
  }

 private:
  const ModelShell shell_;
  const size_t sleep_bytes_;
  const SleepingEngine engine_;
  MemoryLedger& ledger_;  // of the device
  const Clock& clock_;
};

}  // namespace

Result<std::unique_ptr<SleepingModel>> put_to_sleep(LoadedModel& model, MemoryLedger& ledger, const Clock& clock) {
  if (model.core == nullptr || model.sleep_bytes == 0) {
    return make_error(ErrorCode::unsupported, fmt::format("{} computes on the CPU: unload is what there is", model.id));
  }
  const int32_t cached = model.core->stats().blocks_cached;
  ASSIGN_OR_RETURN(SleepingEngine engine, model.core->sleep());
  size_t bytes = 0;
  size_t pinned = 0;
  for (const SleepingRunner* runner : {engine.model.get(), engine.draft.get()}) {
    if (runner == nullptr) continue;
    bytes += runner->weight_bytes();
    pinned += runner->pinned_bytes();
  }
  log_info(
      "{}: sleeps in host memory, {:.2f} GiB of weights ({:.2f} GiB pinned); {} cached blocks of prefixes are dropped",
      model.id, static_cast<double>(bytes) / kGiB, static_cast<double>(pinned) / kGiB, cached);
  return std::unique_ptr<SleepingModel>(
      std::make_unique<SleepingEngineModel>(model, model.sleep_bytes, std::move(engine), ledger, clock));
}

}  // namespace inferneo
