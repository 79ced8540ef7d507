#include "models/onnx/onnx_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "formats/onnx/own_graphs.h"
#include "formats/onnx/tensor_scan.h"

namespace inferneo::onnx {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxHeads = 1 << 16;

// In order of preference. One that holds both branches runs prompts and answers; one "with past" as well.
constexpr std::array kUsualFiles = {
    "model.onnx",         "decoder_model_merged.onnx", "decoder_with_past_model.onnx",
    "decoder_model.onnx", "onnx/model.onnx",           "onnx/decoder_model_merged.onnx"};

Result<std::string> find_graph(const ModelDirectory& directory, const std::string& stated) {
  // By its ending the library chooses a reader: of other formats it has some that no scan of ours looks at.
  if (!stated.empty() && !stated.ends_with(".onnx")) {
    return make_error(ErrorCode::refused, fmt::format("model '{}': '{}' is no .onnx file, and only those are opened",
                                                      directory.name(), shown_name(stated)));
  }
  if (!stated.empty()) return stated;
  for (const char* file : kUsualFiles) {
    if (directory.contains(file)) return std::string(file);
  }
  ASSIGN_OR_RETURN(std::vector<std::string> files, directory.list());
  std::erase_if(files, [](const std::string& file) { return !file.ends_with(".onnx"); });
  if (files.size() == 1) return files.front();
  if (files.empty()) {
    return make_error(ErrorCode::not_found, fmt::format("model '{}': no .onnx file is there", directory.name()));
  }
  files.resize(std::min<size_t>(files.size(), 8));
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("model '{}': several graphs and none is named model.onnx; give the path of one of {}",
                                directory.name(), fmt::join(files, ", ")));
}

// The first of several fields that is there.
Result<int32_t> first_integer(const ConfigReader& config, std::initializer_list<std::string_view> keys, int64_t max) {
  for (const std::string_view key : keys) {
    ASSIGN_OR_RETURN(const std::optional<int64_t> value, config.optional_integer(key, 1, max));
    if (value) return static_cast<int32_t>(*value);
  }
  return 0;
}

Status read_model_config(const ConfigReader& config, OnnxDescription& about) {
  if (config.has("architectures")) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, config.strings("architectures"));
    if (!names.empty()) about.architecture = names.front();
  }
  ASSIGN_OR_RETURN(about.max_position,
                   first_integer(config, {"max_position_embeddings", "n_positions", "n_ctx"}, kMaxTokens));
  ASSIGN_OR_RETURN(about.sizes.vocab_size, first_integer(config, {"vocab_size"}, kMaxVocabulary));
  ASSIGN_OR_RETURN(about.sizes.kv_heads,
                   first_integer(config, {"num_key_value_heads", "num_attention_heads", "n_head"}, kMaxHeads));
  ASSIGN_OR_RETURN(about.sizes.head_dim, first_integer(config, {"head_dim"}, kMaxHeads));
  if (about.sizes.head_dim == 0) {
    ASSIGN_OR_RETURN(const int32_t width, first_integer(config, {"hidden_size", "n_embd"}, kMaxTokens));
    ASSIGN_OR_RETURN(const int32_t heads, first_integer(config, {"num_attention_heads", "n_head"}, kMaxHeads));
    if (width > 0 && heads > 0) about.sizes.head_dim = width / heads;
  }
  return ok_status();
}

Status read_names(const ConfigReader& decoder, OnnxNames& names) {
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> inputs, decoder.optional_section("inputs"));
  if (inputs) {
    ASSIGN_OR_RETURN(names.input_ids, inputs->string_or("input_ids", ""));
    ASSIGN_OR_RETURN(names.attention_mask, inputs->string_or("attention_mask", ""));
    ASSIGN_OR_RETURN(names.position_ids, inputs->string_or("position_ids", ""));
    ASSIGN_OR_RETURN(names.past_key, inputs->string_or("past_key_names", ""));
    ASSIGN_OR_RETURN(names.past_value, inputs->string_or("past_value_names", ""));
  }
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> outputs, decoder.optional_section("outputs"));
  if (outputs) {
    ASSIGN_OR_RETURN(names.logits, outputs->string_or("logits", ""));
    ASSIGN_OR_RETURN(names.present_key, outputs->string_or("present_key_names", ""));
    ASSIGN_OR_RETURN(names.present_value, outputs->string_or("present_value_names", ""));
  }
  return ok_status();
}

// genai_config.json's ids of tokens and the way its authors sample, where config.json does not say it.
Status read_genai_generation(const ConfigReader& genai, const ConfigReader& model, OnnxDescription& about) {
  GenerationConfig& generation = about.generation;
  ASSIGN_OR_RETURN(const std::vector<int64_t> ends, model.integers("eos_token_id", 0, kMaxVocabulary));
  generation.eos_token_ids.assign(ends.begin(), ends.end());
  ASSIGN_OR_RETURN(const std::optional<int64_t> begin, model.optional_integer("bos_token_id", 0, kMaxVocabulary));
  if (begin) generation.bos_token_id = static_cast<Token>(*begin);
  ASSIGN_OR_RETURN(const std::optional<int64_t> pad, model.optional_integer("pad_token_id", 0, kMaxVocabulary));
  if (pad) generation.pad_token_id = static_cast<Token>(*pad);
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> search, genai.optional_section("search"));
  if (!search) return ok_status();
  ASSIGN_OR_RETURN(const bool samples, search->boolean_or("do_sample", false));
  generation.do_sample = samples;
  const auto number = [&](std::string_view key, double max) -> Result<std::optional<float>> {
    ASSIGN_OR_RETURN(const std::optional<double> value, search->optional_number(key, 0.0, max));
    return value ? std::optional<float>(static_cast<float>(*value)) : std::nullopt;
  };
  ASSIGN_OR_RETURN(generation.temperature, number("temperature", 100.0));
  ASSIGN_OR_RETURN(generation.top_p, number("top_p", 1.0));
  ASSIGN_OR_RETURN(generation.repetition_penalty, number("repetition_penalty", 100.0));
  ASSIGN_OR_RETURN(const std::optional<int64_t> top_k, search->optional_integer("top_k", 0, kMaxVocabulary));
  if (top_k) generation.top_k = static_cast<int>(*top_k);
  return ok_status();
}

Status read_genai(const ConfigReader& genai, bool has_config, OnnxDescription& about, std::string& file) {
  ASSIGN_OR_RETURN(const ConfigReader model, genai.section("model"));
  ASSIGN_OR_RETURN(const ConfigReader decoder, model.section("decoder"));
  ASSIGN_OR_RETURN(file, decoder.string_or("filename", ""));
  RETURN_IF_ERROR(read_names(decoder, about.names));
  const auto fill = [](int32_t& place, const ConfigReader& from, std::string_view key, int64_t max) -> Status {
    if (place != 0) return ok_status();
    ASSIGN_OR_RETURN(place, first_integer(from, {key}, max));
    return ok_status();
  };
  // A graph that was made for shorter contexts than its model has says so here alone.
  ASSIGN_OR_RETURN(const int32_t context, first_integer(model, {"context_length"}, kMaxTokens));
  if (context > 0) about.max_position = about.max_position == 0 ? context : std::min(about.max_position, context);
  RETURN_IF_ERROR(fill(about.sizes.vocab_size, model, "vocab_size", kMaxVocabulary));
  RETURN_IF_ERROR(fill(about.sizes.kv_heads, decoder, "num_key_value_heads", kMaxHeads));
  RETURN_IF_ERROR(fill(about.sizes.head_dim, decoder, "head_size", kMaxHeads));
  if (has_config) return ok_status();
  ASSIGN_OR_RETURN(about.architecture, model.string_or("type", "ONNX"));
  return read_genai_generation(genai, model, about);
}

Result<struct ::stat> look_at(const std::string& path, const std::string& label) {
  struct ::stat info {};
  if (::stat(path.c_str(), &info) == 0) return info;
  return make_error(ErrorCode::io_error, fmt::format("{}: {}", label, std::strerror(errno)));
}

void add_key(std::string& key, const struct ::stat& info) {
  // Who writes a file can set the time of its content back, but not that of its last change.
  key += fmt::format("{}:{}:{}:{}.{}:{}.{} ", info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                     info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
}

}  // namespace

Result<OnnxDescription> describe_onnx(const ModelDirectory& directory, const std::string& file) {
  OnnxDescription about;
  const bool has_config = directory.contains("config.json");
  if (has_config) {
    ASSIGN_OR_RETURN(const ConfigReader config, read_config(directory));
    ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation,
                     read_optional_config(directory, "generation_config.json"));
    RETURN_IF_ERROR(read_model_config(config, about));
    const int64_t vocabulary = about.sizes.vocab_size > 0 ? about.sizes.vocab_size : kMaxVocabulary;
    ASSIGN_OR_RETURN(about.generation, read_generation_config(config, generation, vocabulary));
  }
  std::string stated;
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> genai, read_optional_config(directory, "genai_config.json"));
  if (genai) RETURN_IF_ERROR(read_genai(*genai, has_config, about, stated));
  ASSIGN_OR_RETURN(about.file, find_graph(directory, file.empty() ? stated : file));
  return about;
}

Result<OnnxFiles> scan_onnx_files(const ModelDirectory& directory, const std::string& file, MemoryLedger& ledger,
                                  const std::string& model, const std::string& home) {
  OnnxFiles files;
  const std::string label = fmt::format("model '{}': {}", directory.name(), file);
  ASSIGN_OR_RETURN(const std::string real, directory.resolve(file));
  // Not the real path: in a hub's cache that is a blob, and data beside the graph are looked for beside the link.
  files.path = directory.path() + "/" + file;
  ASSIGN_OR_RETURN(const struct ::stat info, look_at(real, label));
  files.file_bytes = static_cast<uint64_t>(info.st_size);
  add_key(files.key, info);
  {
    ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> mapped, directory.map(ledger, model, file));
    ASSIGN_OR_RETURN(files.facts, scan_onnx_graph(mapped->bytes(), label));
    files.own = OwnGraphs(home).contains(mapped->bytes());
    if (mapped->truncated()) return make_error(ErrorCode::io_error, label + ": cut short while it was read");
  }
  const size_t slash = file.find_last_of('/');
  const std::string folder = slash == std::string::npos ? std::string() : file.substr(0, slash + 1);
  for (const auto& [location, data] : files.facts.external) {
    const std::string name = folder + location;
    ASSIGN_OR_RETURN(const std::string data_path, directory.resolve(name));
    ASSIGN_OR_RETURN(const struct ::stat data_info,
                     look_at(data_path, fmt::format("model '{}': {}", directory.name(), name)));
    if (static_cast<uint64_t>(data_info.st_size) < data.needed) {
      return make_error(ErrorCode::malformed, fmt::format("{}: its tensors need {} bytes of {}, which has {}", label,
                                                          data.needed, name, data_info.st_size));
    }
    files.external_bytes += static_cast<uint64_t>(data_info.st_size);
    add_key(files.key, data_info);
  }
  return files;
}

}  // namespace inferneo::onnx
