// The effects behind the model manager: from a name to a model that answers (files, tokenizer, runner, engine core).
//
// Thread: load() runs on the manager's thread; the pool, ledgers, weight store, KV disk and clock are shared and
// outlive every model.
#pragma once

#include <memory>

#include "app/gpu_ranks.h"
#include "base/clock.h"
#include "base/idle_gate.h"
#include "base/thread_pool.h"
#include "inferneo/config.h"
#include "kv_disk/kv_disk.h"
#include "manager/manager_core.h"
#include "models/transformers/weight_store.h"
#include "tensor/cuda/device.h"
#include "tensor/ledger.h"

namespace inferneo {

struct LoadingContext {
  const EngineConfig& config;
  ThreadPool& pool;
  MemoryLedger& ledger;  // that the manager keeps models within: of the GPU where there is one, else of the host
  MemoryLedger& host;    // of the host
  std::shared_ptr<cuda::Device> gpu;  // null: everything computes on the CPU
  WeightStore& weights;
  const Clock& clock;
  IdleGate* idle_gate = nullptr;  // of all models of the process; null: each model has its own
  KvDisk* kv_disk = nullptr;      // the prefix cache's level on disk; null: there is none
  GpuRanks* gpu_ranks = nullptr;  // that share models with `gpu`; null: as that is
};

// Whether such a record may be registered with a server of this configuration: its settings and their values, and for
// one that the operator did not name, where its files lie. Files that are not there yet are no reason to refuse.
Status check_registration(const EngineConfig& config, const ModelRecord& record);
// The first half of it: settings and their values, of a template its text, not where files lie.
Status check_settings(const EngineConfig& config, const ModelRecord& record);

std::unique_ptr<ModelLoader> make_model_loader(const LoadingContext& context);

}  // namespace inferneo
