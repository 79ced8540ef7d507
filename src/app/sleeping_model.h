// Models of a GPU that sleep in the host's memory: what the loader keeps of them, and their way back.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "manager/loaded_model.h"
#include "tensor/ledger.h"

namespace inferneo {

// ModelLoader::sleep(). The ledger is the device's; it and the clock outlive the sleeper.
Result<std::unique_ptr<SleepingModel>> put_to_sleep(LoadedModel& model, MemoryLedger& ledger, const Clock& clock);

}  // namespace inferneo
