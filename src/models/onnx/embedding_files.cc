#include "models/onnx/embedding_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/generation_config.h"
#include "formats/sentence_modules.h"

namespace inferneo::onnx {
namespace {

constexpr int64_t kMost = 1 << 24;

Result<Pooling> pooling_named(const ConfigReader& config, std::string_view name) {
  if (name == "mean") return Pooling::mean;
  if (name == "cls") return Pooling::cls;
  if (name == "lasttoken" || name == "last") return Pooling::last;
  return config.error("pooling_mode",
                      fmt::format("{} is not known here (mean, cls, lasttoken are); set pooling, or export the graph "
                                  "with its own sentence_embedding",
                                  name.substr(0, 64)),
                      ErrorCode::unsupported);
}

Result<Pooling> read_pooling(const ModelDirectory& directory, const std::string& folder) {
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> config, read_optional_config(directory, folder + "/config.json"));
  if (!config) {
    return make_error(ErrorCode::not_found,
                      fmt::format("{}/config.json, which modules.json names, is not there", folder.substr(0, 256)));
  }
  if (config->is_string("pooling_mode")) {
    ASSIGN_OR_RETURN(const std::string name, config->string("pooling_mode"));
    return pooling_named(*config, name);
  }
  std::optional<Pooling> chosen;
  for (const std::string& key : config->keys()) {
    constexpr std::string_view kPrefix = "pooling_mode_";
    if (!key.starts_with(kPrefix)) continue;
    ASSIGN_OR_RETURN(const bool set, config->boolean_or(key, false));
    if (!set) continue;
    std::string name = key.substr(kPrefix.size());
    if (name.ends_with("_token")) name.resize(name.size() - 6);   // cls_token
    if (name.ends_with("_tokens")) name.resize(name.size() - 7);  // mean_tokens
    if (chosen) {
      return config->error(key,
                           "and another pooling are set, whose rows would be put one behind the other; that is "
                           "not there, set pooling to one of them",
                           ErrorCode::unsupported);
    }
    ASSIGN_OR_RETURN(chosen, pooling_named(*config, name));
  }
  return chosen.value_or(Pooling::mean);
}

Status read_module_files(const ModelDirectory& directory, const OnnxLoadOptions& options, bool pooled,
                         EmbeddingFiles& files) {
  ASSIGN_OR_RETURN(const std::vector<SentenceModule> modules, read_sentence_modules(directory));
  std::optional<Pooling> pooling;
  bool normalizes = false;
  for (const SentenceModule& module : modules) {
    if (module.kind == "Normalize") normalizes = true;
    const bool known = module.kind == "Transformer" || module.kind == "Pooling" || module.kind == "Normalize";
    if (!known && !pooled) {
      return make_error(
          ErrorCode::unsupported,
          fmt::format("modules.json has a module {}, which is not there; export the graph with all of its "
                      "modules, so that it has an output sentence_embedding",
                      module.kind.substr(0, 64)));
    }
    if (module.kind == "Pooling" && !pooled && options.pooling == "auto") {
      ASSIGN_OR_RETURN(pooling, read_pooling(directory, module.path));
    }
  }
  if (modules.empty() && !pooled && options.pooling == "auto" && directory.contains("1_Pooling/config.json")) {
    ASSIGN_OR_RETURN(pooling, read_pooling(directory, "1_Pooling"));
  }
  files.pooling = pooling.value_or(Pooling::mean);
  files.normalize = modules.empty() || normalizes;
  return ok_status();
}

// The positions of these begin behind the padding's id.
bool counts_from_padding(std::string_view type) {
  constexpr std::array<std::string_view, 6> kTypes = {"roberta", "xlm-roberta",   "camembert",
                                                      "mpnet",   "data2vec-text", "xlm-roberta-xl"};
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

Status read_model_files(const ModelDirectory& directory, EmbeddingFiles& files) {
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> config, read_optional_config(directory, "config.json"));
  if (config) {
    ASSIGN_OR_RETURN(files.pad_token, config->integer_or("pad_token_id", 0, 0, kMost));
    ASSIGN_OR_RETURN(const int64_t vocabulary, config->integer_or("vocab_size", 0, 0, kMost));
    files.vocab_size = static_cast<int32_t>(vocabulary);
    ASSIGN_OR_RETURN(int64_t positions, config->integer_or("max_position_embeddings", 0, 0, kMost));
    ASSIGN_OR_RETURN(const std::string type, config->string_or("model_type", ""));
    if (positions > 0 && counts_from_padding(type)) positions = std::max<int64_t>(1, positions - files.pad_token - 1);
    files.max_tokens = static_cast<int32_t>(positions);
    if (vocabulary > 0 && files.pad_token >= vocabulary) files.pad_token = 0;
  }
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> sentences,
                   read_optional_config(directory, "sentence_bert_config.json"));
  if (!sentences) return ok_status();
  ASSIGN_OR_RETURN(const int64_t longest, sentences->integer_or("max_seq_length", 0, 0, kMost));
  if (longest > 0 && (files.max_tokens == 0 || longest < files.max_tokens)) {
    files.max_tokens = static_cast<int32_t>(longest);
  }
  return ok_status();
}

}  // namespace

Result<EmbeddingFiles> read_embedding_files(const ModelDirectory& directory, const OnnxLoadOptions& options,
                                            bool pooled) {
  EmbeddingFiles files;
  const auto read = [&]() -> Status {
    RETURN_IF_ERROR(read_model_files(directory, files));
    return read_module_files(directory, options, pooled, files);
  };
  if (Status status = read(); !status.ok()) {
    Error error = std::move(status).error();
    error.message = fmt::format("model '{}': {}", directory.name(), error.message);
    return error;
  }
  if (options.pooling == "mean") files.pooling = Pooling::mean;
  if (options.pooling == "cls") files.pooling = Pooling::cls;
  if (options.pooling == "last") files.pooling = Pooling::last;
  if (options.normalize != "auto") files.normalize = options.normalize == "true";
  const int32_t wanted = options.max_model_len;
  if (wanted > 0 && files.max_tokens > 0 && wanted > files.max_tokens) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("model '{}': max_model_len {} exceeds its longest context of {} tokens",
                                  directory.name(), wanted, files.max_tokens),
                      "max_model_len");
  }
  if (wanted > 0) files.max_tokens = wanted;
  if (files.max_tokens == 0) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("model '{}': neither config.json nor sentence_bert_config.json states its longest "
                                  "text; give max_model_len",
                                  directory.name()),
                      "max_model_len");
  }
  return files;
}

}  // namespace inferneo::onnx
