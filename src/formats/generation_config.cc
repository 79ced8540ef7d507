#include "formats/generation_config.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr size_t kMaxEndTokens = 64;

Result<std::vector<Token>> read_end_tokens(const ConfigReader& reader, int64_t vocab_size) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> ids, reader.integers("eos_token_id", 0, vocab_size - 1));
  if (ids.size() > kMaxEndTokens) return reader.error("eos_token_id", "names more than 64 tokens");
  std::vector<Token> tokens;
  for (const int64_t id : ids) {
    const Token token = static_cast<Token>(id);
    if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
  }
  return tokens;
}

// -1 stands for "none" in some files.
Result<std::optional<Token>> read_token(const ConfigReader& reader, std::string_view key, int64_t vocab_size) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> id, reader.optional_integer(key, -1, vocab_size - 1));
  if (!id || *id < 0) return std::optional<Token>();
  return std::optional<Token>(static_cast<Token>(*id));
}

Result<std::optional<float>> read_float(const ConfigReader& reader, std::string_view key, double min, double max) {
  ASSIGN_OR_RETURN(const std::optional<double> value, reader.optional_number(key, min, max));
  if (!value) return std::optional<float>();
  return std::optional<float>(static_cast<float>(*value));
}

Result<std::optional<int>> read_int(const ConfigReader& reader, std::string_view key, int64_t min, int64_t max) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> value, reader.optional_integer(key, min, max));
  if (!value) return std::optional<int>();
  return std::optional<int>(static_cast<int>(*value));
}

Status read_sampling(const ConfigReader& reader, GenerationConfig& config) {
  if (reader.has("do_sample")) {
    ASSIGN_OR_RETURN(const bool do_sample, reader.boolean("do_sample"));
    config.do_sample = do_sample;
  }
  ASSIGN_OR_RETURN(config.temperature, read_float(reader, "temperature", 0.0, 100.0));
  ASSIGN_OR_RETURN(config.top_k, read_int(reader, "top_k", -1, INT32_MAX));
  ASSIGN_OR_RETURN(config.top_p, read_float(reader, "top_p", 0.0, 1.0));
  ASSIGN_OR_RETURN(config.min_p, read_float(reader, "min_p", 0.0, 1.0));
  ASSIGN_OR_RETURN(config.typical_p, read_float(reader, "typical_p", 0.0, 1.0));
  ASSIGN_OR_RETURN(config.repetition_penalty, read_float(reader, "repetition_penalty", 0.01, 100.0));
  ASSIGN_OR_RETURN(config.max_new_tokens, read_int(reader, "max_new_tokens", 1, INT32_MAX));
  return ok_status();
}

}  // namespace

Result<GenerationConfig> read_generation_config(const ConfigReader& config,
                                                const std::optional<ConfigReader>& generation, int64_t vocab_size) {
  GenerationConfig result;
  ASSIGN_OR_RETURN(result.eos_token_ids, read_end_tokens(config, vocab_size));
  ASSIGN_OR_RETURN(result.bos_token_id, read_token(config, "bos_token_id", vocab_size));
  ASSIGN_OR_RETURN(result.pad_token_id, read_token(config, "pad_token_id", vocab_size));
  if (!generation) return result;

  ASSIGN_OR_RETURN(std::vector<Token> ends, read_end_tokens(*generation, vocab_size));
  ASSIGN_OR_RETURN(const std::optional<Token> bos, read_token(*generation, "bos_token_id", vocab_size));
  ASSIGN_OR_RETURN(const std::optional<Token> pad, read_token(*generation, "pad_token_id", vocab_size));
  if (!ends.empty()) result.eos_token_ids = std::move(ends);
  if (bos) result.bos_token_id = bos;
  if (pad) result.pad_token_id = pad;
  RETURN_IF_ERROR(read_sampling(*generation, result));
  return result;
}

Result<ConfigReader> read_config(const ModelDirectory& directory, std::string_view file) {
  ASSIGN_OR_RETURN(const std::string text, directory.read(file, kMaxConfigBytes));
  return ConfigReader::parse(text, std::string(file));
}

Result<std::optional<ConfigReader>> read_optional_config(const ModelDirectory& directory, std::string_view file) {
  if (const Result<std::string> path = directory.resolve(file);
      !path.ok() && path.error().code == ErrorCode::not_found) {
    return std::optional<ConfigReader>();
  }
  ASSIGN_OR_RETURN(ConfigReader reader, read_config(directory, file));
  return std::optional<ConfigReader>(std::move(reader));
}

}  // namespace inferneo
