// The rotary part of config.json, in both of its styles:
//   v4: rope_theta, partial_rotary_factor, rope_scaling {type or rope_type, ...}
//   v5: rope_parameters {rope_type, rope_theta, partial_rotary_factor, ...}, or keyed by layer type
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/transformers/config_fields.h"

namespace inferneo {
namespace {

constexpr double kMaxFactor = 1e6;

double yarn_magnitude(double scale, double weight) { return scale <= 1.0 ? 1.0 : 0.1 * weight * std::log(scale) + 1.0; }

// These schemes stretch the context of pretraining by their factor, whether or not max_position_embeddings says so.
void extend_context(DecoderSpec& spec, const RopeSpec& rope) {
  const double stretched = std::min(rope.factor * rope.original_max_position, double{1 << 27});
  spec.max_position = std::max(spec.max_position, static_cast<int32_t>(stretched));
}

int32_t original_positions(ConfigFields& config, ConfigFields& section, int64_t fallback) {
  const int32_t outer = config.integer_or("original_max_position_embeddings", fallback, 1, 1 << 27);
  return section.integer_or("original_max_position_embeddings", outer, 1, 1 << 27);
}

void read_llama3(ConfigFields&, ConfigFields& section, DecoderSpec&, RopeSpec& rope) {
  rope.factor = section.number("factor", 1.0, kMaxFactor);
  rope.low_freq_factor = section.number("low_freq_factor", 1e-6, kMaxFactor);
  rope.high_freq_factor = section.number("high_freq_factor", 1e-6, kMaxFactor);
  rope.original_max_position = section.integer("original_max_position_embeddings", 1, 1 << 27);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    section.fail("high_freq_factor", "must be greater than low_freq_factor");
  }
}

void read_linear(ConfigFields&, ConfigFields& section, DecoderSpec&, RopeSpec& rope) {
  rope.factor = section.number("factor", 1.0, kMaxFactor);
}

void read_dynamic(ConfigFields&, ConfigFields& section, DecoderSpec& spec, RopeSpec& rope) {
  rope.factor = section.number("factor", 1.0, kMaxFactor);
  rope.original_max_position = spec.max_position;
  extend_context(spec, rope);
  if (rope.rotary_dim <= 2) section.fail("rope_type", "dynamic needs more than 2 rotary dimensions");
}

void read_yarn(ConfigFields& config, ConfigFields& section, DecoderSpec& spec, RopeSpec& rope) {
  rope.factor = section.number("factor", 1.0, kMaxFactor);
  rope.original_max_position = original_positions(config, section, spec.max_position);
  extend_context(spec, rope);
  rope.beta_fast = section.number_or("beta_fast", 32.0, 1e-6, kMaxFactor);
  rope.beta_slow = section.number_or("beta_slow", 1.0, 1e-6, kMaxFactor);
  rope.truncate = section.boolean_or("truncate", true);
  section.ignore({"finetuned"});
  const double mscale = section.number_or("mscale", 0.0, 0.0, kMaxFactor);
  const double mscale_all = section.number_or("mscale_all_dim", 0.0, 0.0, kMaxFactor);
  const double inferred = mscale > 0.0 && mscale_all > 0.0
                              ? yarn_magnitude(rope.factor, mscale) / yarn_magnitude(rope.factor, mscale_all)
                              : yarn_magnitude(rope.factor, 1.0);
  rope.attention_factor = section.number_or("attention_factor", inferred, 1e-6, kMaxFactor);
  if (rope.theta <= 1.0) config.fail("rope_theta", "must be greater than 1 with yarn");
}

void read_longrope(ConfigFields& config, ConfigFields& section, DecoderSpec& spec, RopeSpec& rope) {
  rope.original_max_position = original_positions(config, section, spec.max_position);
  const auto read_factors = [&](std::string_view key) {
    std::vector<float> factors;
    for (const double value : section.numbers(key, 1e-6, kMaxFactor)) factors.push_back(static_cast<float>(value));
    if (factors.size() != static_cast<size_t>(rope.rotary_dim) / 2) {
      section.fail(key, fmt::format("must have {} entries (half of the rotary dimensions), has {}", rope.rotary_dim / 2,
                                    factors.size()));
      factors.assign(static_cast<size_t>(rope.rotary_dim) / 2, 1.0F);
    }
    return factors;
  };
  rope.short_factors = read_factors("short_factor");
  rope.long_factors = read_factors("long_factor");
  const double stretch = static_cast<double>(spec.max_position) / rope.original_max_position;
  rope.factor =
      config.has("original_max_position_embeddings") ? stretch : section.number_or("factor", stretch, 1e-6, kMaxFactor);
  section.ignore({"factor"});
  double inferred = 1.0;
  if (rope.factor > 1.0 && rope.original_max_position > 1) {
    inferred = std::sqrt(1.0 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_max_position)));
  }
  rope.attention_factor = section.number_or("attention_factor", inferred, 1e-6, kMaxFactor);
}

void read_none(ConfigFields&, ConfigFields&, DecoderSpec&, RopeSpec&) {}

struct ScalingRow {
  std::string_view name;
  RopeScaling scaling;
  void (*read)(ConfigFields& config, ConfigFields& section, DecoderSpec& spec, RopeSpec& rope);
};
constexpr std::array kScalings = {
    ScalingRow{"default", RopeScaling::none, read_none},
    ScalingRow{"linear", RopeScaling::linear, read_linear},
    ScalingRow{"dynamic", RopeScaling::dynamic, read_dynamic},
    ScalingRow{"yarn", RopeScaling::yarn, read_yarn},
    ScalingRow{"llama3", RopeScaling::llama3, read_llama3},
    ScalingRow{"longrope", RopeScaling::longrope, read_longrope},
    ScalingRow{"su", RopeScaling::longrope, read_longrope},  // the name of longrope in early Phi-3 configs
};

}  // namespace

RopeSpec read_rope(ConfigFields& config, DecoderSpec& spec, int32_t head_dim, double default_theta,
                   std::string_view layer_type) {
  RopeSpec rope;
  std::optional<ConfigFields> section = config.section("rope_parameters");
  if (!section) section = config.section("rope_scaling");
  if (section && !layer_type.empty() && section->has(layer_type)) section = section->section(layer_type);

  double theta = config.number_or("rope_theta", default_theta, 1e-3, 1e15);
  double partial = config.number_or("partial_rotary_factor", 1.0, 0.0, 1.0);
  if (section) {
    theta = section->number_or("rope_theta", theta, 1e-3, 1e15);
    partial = section->number_or("partial_rotary_factor", partial, 0.0, 1.0);
  }
  rope.theta = theta;
  rope.rotary_dim = static_cast<int32_t>(head_dim * partial);
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0) {
    config.fail(partial < 1.0 ? "partial_rotary_factor" : "head_dim",
                fmt::format("gives {} rotary dimensions; an even number is needed", rope.rotary_dim));
    rope.rotary_dim = 2;
  }
  if (!section) {
    // Written by some families even where nothing is scaled.
    config.ignore({"original_max_position_embeddings"});
    return rope;
  }
  const std::string type = section->string_or("rope_type", section->string_or("type", "default"));
  for (const ScalingRow& row : kScalings) {
    if (row.name != type) continue;
    rope.scaling = row.scaling;
    row.read(config, *section, spec, rope);
    config.ignore({"original_max_position_embeddings"});
    return rope;
  }
  section->fail(
      "rope_type",
      fmt::format("'{}' is not supported; default, linear, dynamic, yarn, llama3 and longrope are", type.substr(0, 60)),
      ErrorCode::unsupported);
  return rope;
}

}  // namespace inferneo
