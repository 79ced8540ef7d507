// What the family files read config.json with: getters that always return a value in range and remember the first
// error, so that a family reads like a table of its fields. finish() gives that error, or names a field that nobody
// understood.
//
// Policy on unknown fields: a field that no getter asked for and that is not in the list of harmless ones
// (config_fields.cc, or the family's own) refuses the model, unless it is null or starts with an underscore. Better a
// sentence at load time than wrong text.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/config_reader.h"
#include "models/decoder_spec.h"

namespace inferneo {

class ConfigFields {
 public:
  explicit ConfigFields(ConfigReader reader);

  int32_t integer(std::string_view key, int64_t min, int64_t max);  // must be there
  int32_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  double number(std::string_view key, double min, double max);
  double number_or(std::string_view key, double fallback, double min, double max);
  bool boolean_or(std::string_view key, bool fallback);
  // For options where null means "off" (0) and an absent field means the family's default.
  double number_or_off(std::string_view key, double absent, double min, double max);
  std::string string_or(std::string_view key, std::string_view fallback);
  std::vector<int64_t> integers(std::string_view key, int64_t min, int64_t max);
  std::vector<double> numbers(std::string_view key, double min, double max);
  std::vector<std::string> strings(std::string_view key);
  bool has(std::string_view key) const { return reader_.has(key); }
  std::optional<ConfigFields> section(std::string_view key);  // shares the first error

  // Understood, and without effect on what is computed.
  void ignore(std::initializer_list<std::string_view> keys);
  // An option that is understood but not there: anything but false, 0 or null is an error.
  void refuse_if_set(std::string_view key, std::string_view why);
  void fail(std::string_view key, std::string_view problem, ErrorCode code = ErrorCode::malformed);

  bool ok() const { return state_->status.ok(); }
  const std::string& file() const { return reader_.file(); }
  Status finish();  // the first error, or the first field that is not understood

 private:
  struct State {
    Status status;
  };
  ConfigFields(ConfigReader reader, std::shared_ptr<State> state);
  template <typename T>
  T take(Result<T> result, T otherwise);

  ConfigReader reader_;
  std::shared_ptr<State> state_;
};

// The parts that families share. All take defaults from the family, as transformers' config classes do.

// What a family calls its sizes.
struct SizeKeys {
  std::string_view hidden = "hidden_size";
  std::string_view layers = "num_hidden_layers";
  std::string_view positions = "max_position_embeddings";
};
// vocab_size, the sizes above, tie_word_embeddings, dtype.
DecoderSpec read_decoder(ConfigFields& config, bool tied_by_default, const SizeKeys& keys = {});

struct AttentionDefaults {
  int32_t head_dim = 0;  // 0: hidden_size / num_attention_heads
  bool qkv_bias = false;
  bool output_bias = false;
  std::string_view heads_key = "num_attention_heads";
};
// num_attention_heads, num_key_value_heads, head_dim; scale is 1 / sqrt(head_dim).
AttentionSpec read_attention(ConfigFields& config, const DecoderSpec& spec, const AttentionDefaults& defaults);

// rope_theta with rope_scaling, or rope_parameters; layer_type picks one of several sets where they are keyed by it.
// Raises max_position where the scheme stretches the context.
RopeSpec read_rope(ConfigFields& config, DecoderSpec& spec, int32_t head_dim, double default_theta = 10000.0,
                   std::string_view layer_type = {});

// sliding_window: 0 when null.
int32_t read_window(ConfigFields& config, int32_t when_absent);
NormSpec read_rms_norm(ConfigFields& config, double default_epsilon);
Activation read_activation(ConfigFields& config, std::string_view key, std::string_view fallback);
FeedForwardSpec read_gated_ffn(ConfigFields& config, std::string_view activation_key = "hidden_act",
                               std::string_view default_activation = "silu");

struct ExpertDefaults {
  int32_t num_experts = 0;
  int32_t experts_per_token = 0;
};
// The number of experts under `key`, and num_experts_per_tok. Layers times experts are bounded, since each is planned
// (its tensors named) before the checkpoint is asked for them.
void read_experts(ConfigFields& config, const DecoderSpec& spec, std::string_view key, const ExpertDefaults& defaults,
                  FeedForwardSpec& ffn);

// layer_types, as one flag per layer: whether it looks through the window; `fallback(layer)` where the field is absent.
std::vector<bool> read_sliding_layers(ConfigFields& config, size_t num_layers,
                                      bool (*fallback)(size_t layer, int64_t arg), int64_t arg);

}  // namespace inferneo
