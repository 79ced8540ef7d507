// The sampling options of `run`: one row each gives the flag and the name for /set. What is not set follows the model's
// generation_config.json.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "serving/inference_service.h"

namespace inferneo {

struct SamplingChoice {
  SamplingParams params;
  ExplicitSampling set;  // which of them were chosen
};

struct SamplingOption {
  std::string_view name;  // of /set: "top_p"
  std::string_view flag;  // "--top-p"
  std::string_view metavar;
  std::string_view help;
  std::string_view expected;
  bool (*assign)(SamplingChoice&, std::string_view);  // false: not what is expected, nothing changed
  std::string (*show)(const SamplingChoice&);
};

std::span<const SamplingOption> sampling_options();
// invalid_argument for an unknown name (with the nearest known) and for a bad value.
Status set_sampling_option(SamplingChoice& choice, std::string_view name, std::string_view value);

}  // namespace inferneo
