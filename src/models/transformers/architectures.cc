#include "models/transformers/architectures.h"

#include <fmt/format.h>

#include <array>
#include <string>

namespace inferneo {
namespace {

constexpr std::array kArchitectures = {
    Architecture{"LlamaForCausalLM", describe_llama},        Architecture{"MistralForCausalLM", describe_mistral},
    Architecture{"Qwen2ForCausalLM", describe_qwen2},        Architecture{"Qwen3ForCausalLM", describe_qwen3},
    Architecture{"Qwen3MoeForCausalLM", describe_qwen3_moe}, Architecture{"Gemma2ForCausalLM", describe_gemma2},
    Architecture{"Gemma3ForCausalLM", describe_gemma3},      Architecture{"Phi3ForCausalLM", describe_phi3},
    Architecture{"GPT2LMHeadModel", describe_gpt2},          Architecture{"Olmo2ForCausalLM", describe_olmo2},
    Architecture{"GraniteForCausalLM", describe_granite},    Architecture{"MixtralForCausalLM", describe_mixtral},
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

Result<DecoderSpec> describe_model(const ConfigReader& config) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, config.strings("architectures"));
  if (names.size() != 1) {
    return config.error("architectures", fmt::format("must name one architecture, names {}", names.size()));
  }
  for (const Architecture& row : kArchitectures) {
    if (row.name != names[0]) continue;
    ConfigFields fields(config);
    DecoderSpec spec = row.describe(fields);
    RETURN_IF_ERROR(fields.finish());
    spec.architecture = names[0];
    return spec;
  }
  std::string known;
  for (const Architecture& row : kArchitectures) known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  return config.error(
      "architectures",
      fmt::format("names '{}', which is not supported; supported are {}", names[0].substr(0, 80), known),
      ErrorCode::unsupported);
}

}  // namespace inferneo
