// Plain data of the public headers as Python classes.
#pragma once

#include <nanobind/nanobind.h>

#include "fields.h"
#include "inferneo/enhanced_stats.h"
#include "inferneo/experiments.h"
#include "inferneo/model_manager.h"
#include "inferneo/result.h"
#include "inferneo/routing.h"
#include "inferneo/sampling_params.h"
#include "inferneo/shadow.h"

namespace inferneo::python {

template <>
struct PythonType<ModelFormat> {
  static std::string name() { return "ModelFormat"; }
};
template <>
struct PythonType<TokenLogprob> {
  static std::string name() { return "TokenLogprob"; }
};
template <>
struct PythonType<GenerationSample> {
  static std::string name() { return "GenerationSample"; }
};
template <>
struct PythonType<RoutingRefusal> {
  static std::string name() { return "RoutingRefusal"; }
};
template <>
struct PythonType<RoutingCandidate> {
  static std::string name() { return "RoutingCandidate"; }
};
template <>
struct PythonType<SamplingOverrides> {
  static std::string name() { return "SamplingOverrides"; }
};
template <>
struct PythonType<ABTestArm> {
  static std::string name() { return "ABTestArm"; }
};
template <>
struct PythonType<ABTestRampStep> {
  static std::string name() { return "ABTestRampStep"; }
};
template <>
struct PythonType<ABTestGuardrails> {
  static std::string name() { return "ABTestGuardrails"; }
};

void bind_results(nanobind::module_& module);  // and ModelFormat; first
void bind_sampling(nanobind::module_& module);
// What generate(prompt, given, **fields) chooses: `given` is None or a SamplingParams. nullopt: something is wrong.
std::optional<SamplingParams> plain_sampling(nanobind::handle given, const nanobind::dict& fields);
void bind_traffic(nanobind::module_& module);  // rules, tests, shadows
void bind_onnx(nanobind::module_& module);
nanobind::dict stats_dict(const EnhancedStats& stats);

}  // namespace inferneo::python
