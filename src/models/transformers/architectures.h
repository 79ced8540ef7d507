// The architectures that the native runner and the converters know: one row each in architectures.cc, one file per
// family.
//
// To add one: a family file with a describe function, a row, a golden model made by tools/make_goldens.py.
// Errors: unsupported for an architecture, a field or an option that is not there; malformed for values out of range or
// in contradiction. Both name the field and the file.
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "formats/config_reader.h"
#include "models/decoder_spec.h"
#include "models/transformers/config_fields.h"

namespace inferneo {

struct Architecture {
  std::string_view name;  // as in config.json's "architectures"
  DecoderSpec (*describe)(ConfigFields& config);
};
std::span<const Architecture> architectures();

// The spec of the model that a config.json describes.
Result<DecoderSpec> describe_model(const ConfigReader& config);

// The family files. Problems are left in `config`, whose finish() reports the first.
DecoderSpec describe_llama(ConfigFields& config);
DecoderSpec describe_mistral(ConfigFields& config);
DecoderSpec describe_qwen2(ConfigFields& config);
DecoderSpec describe_qwen3(ConfigFields& config);
DecoderSpec describe_qwen3_moe(ConfigFields& config);
DecoderSpec describe_gemma2(ConfigFields& config);
DecoderSpec describe_gemma3(ConfigFields& config);
DecoderSpec describe_phi3(ConfigFields& config);
DecoderSpec describe_gpt2(ConfigFields& config);
DecoderSpec describe_olmo2(ConfigFields& config);
DecoderSpec describe_granite(ConfigFields& config);
DecoderSpec describe_mixtral(ConfigFields& config);

}  // namespace inferneo
