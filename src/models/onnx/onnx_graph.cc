#include "models/onnx/onnx_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "formats/onnx/tensor_scan.h"

namespace inferneo::onnx {
namespace {

constexpr int kMaxLayers = 4096;
constexpr int64_t kMaxCacheWidth = int64_t{1} << 18;  // heads * head_dim, so that sizes of caches hold

std::string described(const OnnxPort& port) {
  return fmt::format("'{}' ({} {})", shown_name(port.name), element_type_name(port.type), shape_text(port.shape));
}

// Which layer's keys or values a name stands for.
struct CacheName {
  int layer = 0;
  bool is_value = false;
};

std::optional<int> number_at(std::string_view text, size_t at) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || number >= kMaxLayers) return std::nullopt;
  return number;
}

// "past_key_values.3.value", "past_key_3", "present.3.key": `word` is past or present.
std::optional<CacheName> usual_cache_name(std::string_view name, std::string_view word) {
  if (!name.starts_with(word)) return std::nullopt;
  name.remove_prefix(word.size());
  for (const std::string_view prefix : {"_key_values", "_key_value"}) {
    if (name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
      break;
    }
  }
  const size_t digit = name.find_first_of("0123456789");
  if (digit == std::string_view::npos) return std::nullopt;
  const std::optional<int> layer = number_at(name, digit);
  const bool is_value = name.find("value") != std::string_view::npos;
  if (!layer || (!is_value && name.find("key") == std::string_view::npos)) return std::nullopt;
  return CacheName{*layer, is_value};
}

std::optional<int> match_template(std::string_view name, std::string_view pattern) {
  const size_t at = pattern.find("%d");
  if (at == std::string_view::npos || !name.starts_with(pattern.substr(0, at))) return std::nullopt;
  const std::optional<int> layer = number_at(name, at);
  if (!layer || name.substr(at + std::to_string(*layer).size()) != pattern.substr(at + 2)) return std::nullopt;
  return layer;
}

std::optional<CacheName> cache_name(std::string_view name, std::string_view word, const std::string& keys,
                                    const std::string& values) {
  if (keys.empty() || values.empty()) return usual_cache_name(name, word);
  if (const auto layer = match_template(name, keys)) return CacheName{*layer, false};
  if (const auto layer = match_template(name, values)) return CacheName{*layer, true};
  return std::nullopt;
}

class Discovery {
 public:
  Discovery(const OnnxFacts& facts, const OnnxNames& names, const OnnxSizes& sizes)
      : facts_(facts), names_(names), sizes_(sizes) {}

  Status input(const OnnxPort& port);
  Status output(const OnnxPort& port);
  Result<OnnxGraph> finish();

 private:
  Status whole_numbers(const OnnxPort& port, OnnxPortRef& ref) const;
  Status cache_port(const OnnxPort& port, const CacheName& name, std::map<int, CacheLayer>& layers, bool past);
  Status find_kind();

  const OnnxFacts& facts_;
  const OnnxNames& names_;
  const OnnxSizes& sizes_;
  OnnxGraph graph_;
  std::map<int, CacheLayer> layers_;
  bool typed_ = false;
};

bool is_named(const OnnxPort& port, const std::string& given, std::string_view usual) {
  return port.name == (given.empty() ? usual : std::string_view(given));
}

// [batch, tokens] of whole numbers.
Status Discovery::whole_numbers(const OnnxPort& port, OnnxPortRef& ref) const {
  const bool typed = port.type == ElementType::int64 || port.type == ElementType::int32;
  if (!typed || port.shape.size() != 2 || port.shape[0] >= 0 || port.shape[1] >= 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("input {}: expected int64 or int32 [?, ?], so that batch and length are free; export "
                                  "the model with dynamic axes",
                                  described(port)));
  }
  ref = {port.name, port.type};
  return ok_status();
}

Status Discovery::cache_port(const OnnxPort& port, const CacheName& name, std::map<int, CacheLayer>& layers,
                             bool past) {
  const char* const kind = past ? "input" : "output";
  if (port.type == ElementType::bfloat16) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("{} {} is in bfloat16, for which ONNX Runtime has no CPU kernels; convert the model "
                                  "again with precision f16 or f32",
                                  kind, described(port)));
  }
  const auto fixed = [&](size_t axis, int32_t known) {
    return static_cast<int32_t>(port.shape[axis] >= 0 ? port.shape[axis] : known);
  };
  const bool typed = port.type == ElementType::float32 || port.type == ElementType::float16;
  if (!typed || port.shape.size() != 4 || port.shape[0] >= 0 || (past && port.shape[2] >= 0) || port.shape[1] == 0 ||
      port.shape[3] == 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("{} {}: expected float32 or float16 [?, heads, ?, head_dim]", kind, described(port)));
  }
  const int32_t heads = fixed(1, graph_.kv_heads > 0 ? graph_.kv_heads : sizes_.kv_heads);
  const int32_t head_dim = fixed(3, graph_.head_dim > 0 ? graph_.head_dim : sizes_.head_dim);
  if (past && (heads <= 0 || head_dim <= 0)) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{} {} leaves heads or head_dim open, and neither config.json nor genai_config.json "
                                  "states num_key_value_heads and head_dim",
                                  kind, described(port)));
  }
  if (past && int64_t{heads} * head_dim > kMaxCacheWidth) {
    return make_error(ErrorCode::unsupported, fmt::format("{} {}: {} heads of {} are more than the {} elements of a "
                                                          "token that a cache may have",
                                                          kind, described(port), heads, head_dim, kMaxCacheWidth));
  }
  if (past && !typed_) {
    graph_.cache_type = port.type;
    graph_.kv_heads = heads;
    graph_.head_dim = head_dim;
    typed_ = true;
  }
  const bool same = port.type == graph_.cache_type && (port.shape[1] < 0 || port.shape[1] == graph_.kv_heads) &&
                    (port.shape[3] < 0 || port.shape[3] == graph_.head_dim);
  if (typed_ && !same) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("{} {} differs from the other layers' {} [?, {}, ?, {}]", kind, described(port),
                                  element_type_name(graph_.cache_type), graph_.kv_heads, graph_.head_dim));
  }
  CacheLayer& layer = layers[name.layer];
  std::string& place = past ? (name.is_value ? layer.past_value : layer.past_key)
                            : (name.is_value ? layer.present_value : layer.present_key);
  if (!place.empty()) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{} {} and '{}' are the same layer's", kind, described(port), shown_name(place)));
  }
  place = port.name;
  return ok_status();
}

Status Discovery::input(const OnnxPort& port) {
  if (is_named(port, names_.input_ids, "input_ids")) return whole_numbers(port, graph_.input_ids);
  if (is_named(port, names_.attention_mask, "attention_mask")) return whole_numbers(port, graph_.attention_mask);
  if (is_named(port, names_.position_ids, "position_ids")) return whole_numbers(port, graph_.position_ids);
  if (port.name == "use_cache_branch" && port.type == ElementType::boolean && port.shape.size() <= 1) {
    graph_.use_cache_branch = {port.name, port.type};
    return ok_status();
  }
  if (const auto name = cache_name(port.name, "past", names_.past_key, names_.past_value)) {
    return cache_port(port, *name, layers_, true);
  }
  return make_error(ErrorCode::unsupported,
                    fmt::format("input {} is none that a text generator is known to have (input_ids, attention_mask, "
                                "position_ids, past_key_values.N.key and .value)",
                                described(port)));
}

Status Discovery::output(const OnnxPort& port) {
  if (is_named(port, names_.logits, "logits")) {
    if (port.type == ElementType::bfloat16) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("output {} is in bfloat16, for which ONNX Runtime has no CPU kernels; convert the "
                                    "model again with precision f16 or f32",
                                    described(port)));
    }
    const bool typed = port.type == ElementType::float32 || port.type == ElementType::float16;
    if (!typed || port.shape.size() != 3) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("output {}: expected float32 or float16 [?, ?, vocabulary]", described(port)));
    }
    graph_.logits = {port.name, port.type};
    graph_.vocab_size = static_cast<int32_t>(std::clamp<int64_t>(port.shape[2], 0, INT32_MAX));
    return ok_status();
  }
  if (const auto name = cache_name(port.name, "present", names_.present_key, names_.present_value)) {
    return cache_port(port, *name, layers_, false);
  }
  return ok_status();  // hidden states and attention weights are not asked for
}

Status Discovery::find_kind() {
  // What it hands out and never takes back is no cache.
  const bool takes = std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) {
    return !layer.second.past_key.empty() || !layer.second.past_value.empty();
  });
  if (!takes) return ok_status();
  for (const auto& [number, layer] : layers_) {
    for (const std::string* name : {&layer.past_key, &layer.past_value, &layer.present_key, &layer.present_value}) {
      if (name->empty()) {
        return make_error(ErrorCode::malformed,
                          fmt::format("layer {} of the cache lacks its {} {}", number,
                                      name == &layer.past_key || name == &layer.present_key ? "keys" : "values",
                                      name == &layer.past_key || name == &layer.past_value ? "among the inputs"
                                                                                           : "among the outputs"));
      }
    }
    graph_.layers.push_back(layer);
  }
  const auto attention = facts_.ops.find("com.microsoft.GroupQueryAttention");
  const bool shares = attention != facts_.ops.end() && attention->second >= graph_.layers.size();
  graph_.cache = shares ? CacheKind::shared : CacheKind::copied;
  for (const OnnxValue& input : facts_.optional_inputs) {
    const bool usable = shares && input.name == "first_logits" && input.type == ElementType::int64;
    if (usable && input.shape.size() == 1) graph_.first_logits = {input.name, input.type};
  }
  if (shares && !graph_.attention_mask.present()) {
    return make_error(ErrorCode::unsupported,
                      "the graph has GroupQueryAttention and no input attention_mask, by which a sequence's length is "
                      "told; export it again with attention_mask");
  }
  return ok_status();
}

Result<OnnxGraph> Discovery::finish() {
  if (!graph_.input_ids.present()) return make_error(ErrorCode::unsupported, "the graph has no input input_ids");
  if (!graph_.logits.present()) {
    return make_error(ErrorCode::unsupported,
                      "the graph has no output logits: it does not generate text; with task: auto, embed or tensors "
                      "it is served as what it is");
  }
  if (graph_.vocab_size == 0) graph_.vocab_size = sizes_.vocab_size;
  if (graph_.vocab_size <= 0) {
    return make_error(ErrorCode::malformed,
                      "the output logits leaves the vocabulary's size open, and neither config.json nor "
                      "genai_config.json states vocab_size");
  }
  RETURN_IF_ERROR(find_kind());
  return std::move(graph_);
}

}  // namespace

size_t OnnxGraph::plane_bytes_per_token() const {
  return static_cast<size_t>(kv_heads) * static_cast<size_t>(head_dim) *
         static_cast<size_t>(element_bits(cache_type) / 8);
}
size_t OnnxGraph::cache_bytes_per_token() const {
  return cache == CacheKind::none ? sizeof(int32_t) : 2 * layers.size() * plane_bytes_per_token();
}

Result<OnnxGraph> discover_graph(std::span<const OnnxPort> inputs, std::span<const OnnxPort> outputs,
                                 const OnnxFacts& facts, const OnnxNames& names, const OnnxSizes& sizes) {
  Discovery discovery(facts, names, sizes);
  for (const OnnxPort& port : inputs) RETURN_IF_ERROR(discovery.input(port));
  for (const OnnxPort& port : outputs) RETURN_IF_ERROR(discovery.output(port));
  return discovery.finish();
}

}  // namespace inferneo::onnx
