// Where the time of a step goes: seconds, bytes and operations of each phase, for a benchmark that asks.
//
// The forward pass says which phase begins, the ops say what they cost at the least (op_costs.h). Time is taken in
// laps: every moment from begin() to end() belongs to exactly one phase, so the phases add up to the step, and what
// lies between ops is not lost. Without a profile (Context::profile is null, as everywhere but in a benchmark) an op
// costs one look at that pointer. Threads: the one that runs the step.
#pragma once

#include <array>
#include <chrono>
#include <string_view>

#include "kernels/op_costs.h"

namespace inferneo::kernels {

enum class Phase : uint8_t {
  other,  // of a step, before its first phase
  embedding,
  norms,
  qkv,
  rope,
  cache_write,
  attention,
  attention_output,
  gate_up,
  activation,
  down,
  routing,  // of experts
  head,
  sampling,
};
inline constexpr size_t kNumPhases = 14;

constexpr std::string_view phase_name(Phase phase) {
  constexpr std::array<std::string_view, kNumPhases> kNames = {
      "other", "embedding", "norms",      "q, k, v", "rope",    "cache write", "attention",
      "o",     "gate, up",  "activation", "down",    "experts", "output head", "sampling"};
  return kNames[static_cast<size_t>(phase)];
}

struct PhaseWork {
  double seconds = 0.0;
  OpCost cost;
};

class StepProfile {
 public:
  // Steps add up until clear().
  void clear() { phases_ = {}; }
  void begin() {
    phase_ = Phase::other;
    lap_ = std::chrono::steady_clock::now();
  }
  void enter(Phase phase) {
    lap();
    phase_ = phase;
  }
  void end() { lap(); }
  // Of the phase that runs.
  void count(const OpCost& cost) { phases_[static_cast<size_t>(phase_)].cost += cost; }

  const std::array<PhaseWork, kNumPhases>& phases() const { return phases_; }

 private:
  void lap() {
    const auto now = std::chrono::steady_clock::now();
    phases_[static_cast<size_t>(phase_)].seconds += std::chrono::duration<double>(now - lap_).count();
    lap_ = now;
  }

  std::array<PhaseWork, kNumPhases> phases_ = {};
  Phase phase_ = Phase::other;
  std::chrono::steady_clock::time_point lap_;
};

}  // namespace inferneo::kernels
