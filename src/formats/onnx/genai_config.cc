#include "formats/onnx/genai_config.h"

#include <nlohmann/json.hpp>

namespace inferneo {
namespace {

using Json = nlohmann::ordered_json;

Json decoder_section(const GenaiDecoder& decoder) {
  Json inputs = {{"input_ids", "input_ids"}, {"attention_mask", "attention_mask"}};
  if (decoder.position_ids) inputs["position_ids"] = "position_ids";
  inputs["past_key_names"] = "past_key_values.%d.key";
  inputs["past_value_names"] = "past_key_values.%d.value";
  return {
      {"session_options", {{"log_id", "onnxruntime-genai"}, {"provider_options", Json::array()}}},
      {"filename", "model.onnx"},
      {"head_size", decoder.head_dim},
      {"hidden_size", decoder.hidden_size},
      {"inputs", inputs},
      {"outputs",
       {{"logits", "logits"}, {"present_key_names", "present.%d.key"}, {"present_value_names", "present.%d.value"}}},
      {"num_attention_heads", decoder.num_heads},
      {"num_hidden_layers", decoder.num_layers},
      {"num_key_value_heads", decoder.num_kv_heads}};
}

Json search_section(const GenaiDecoder& decoder, const GenerationConfig& generation) {
  return {{"diversity_penalty", 0.0},
          {"do_sample", generation.do_sample.value_or(false)},
          {"early_stopping", true},
          {"length_penalty", 1.0},
          {"max_length", decoder.context_length},
          {"min_length", 0},
          {"no_repeat_ngram_size", 0},
          {"num_beams", 1},
          {"num_return_sequences", 1},
          {"past_present_share_buffer", decoder.shared_cache},
          {"repetition_penalty", generation.repetition_penalty.value_or(1.0F)},
          {"temperature", generation.temperature.value_or(1.0F)},
          {"top_k", generation.top_k.value_or(50)},
          {"top_p", generation.top_p.value_or(1.0F)}};
}

}  // namespace

std::string genai_config_text(const GenaiDecoder& decoder, const GenerationConfig& generation) {
  Json model = {{"type", "decoder"}};
  if (generation.bos_token_id) model["bos_token_id"] = *generation.bos_token_id;
  if (!generation.eos_token_ids.empty()) model["eos_token_id"] = generation.eos_token_ids;
  const Token pad = generation.eos_token_ids.empty() ? Token{0} : generation.eos_token_ids.front();
  model["pad_token_id"] = generation.pad_token_id.value_or(pad);
  model["context_length"] = decoder.context_length;
  model["vocab_size"] = decoder.vocab_size;
  model["decoder"] = decoder_section(decoder);
  const Json root = {{"model", model}, {"search", search_section(decoder, generation)}};
  return root.dump(2) + "\n";
}

}  // namespace inferneo
