#include "models/onnx_convert/converter.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "base/log.h"
#include "formats/checkpoint.h"
#include "formats/generation_config.h"
#include "formats/onnx/data_file.h"
#include "formats/onnx/own_graphs.h"
#include "models/onnx_convert/emitter.h"
#include "models/onnx_convert/weight_writer.h"
#include "models/transformers/architectures.h"
#include "models/transformers/bound_tensors.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGraphFile = "model.onnx";
constexpr const char* kDataFile = "model.onnx.data";
constexpr const char* kGenaiFile = "genai_config.json";
constexpr size_t kMaxCopiedBytes = size_t{256} << 20;
constexpr int32_t kMostPositions = 1 << 20;  // of rope tables, which take up to a kilobyte for each
// What a runtime reads beside the graph, where the model has it.
constexpr std::array kCopiedFiles = {"config.json",
                                     "generation_config.json",
                                     "tokenizer.json",
                                     "tokenizer.model",
                                     "tokenizer_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "vocab.json",
                                     "merges.txt",
                                     "chat_template.jinja"};

bool is_written(const std::string& file) {
  return file == kGraphFile || file == kDataFile || file == kGenaiFile ||
         std::find(kCopiedFiles.begin(), kCopiedFiles.end(), file) != kCopiedFiles.end();
}

Error file_error(const std::string& file, const std::error_code& error) {
  const bool full = error == std::errc::no_space_on_device;
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error, fmt::format("{}: {}", file, error.message()));
}

// A directory beside the target that is gone again unless it takes the target's name.
class StagingDirectory {
 public:
  static Result<StagingDirectory> create(const std::string& output, bool overwrite) {
    fs::path target = fs::path(output).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();
    if (target.filename().empty() || target.filename() == "." || target.filename() == "..") {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("'{}' is no name for a new directory", output.substr(0, 200)), "output");
    }
    RETURN_IF_ERROR(check_target(target, overwrite));
    std::error_code error;
    if (target.has_parent_path()) fs::create_directories(target.parent_path(), error);
    if (error) return file_error(target.parent_path().string(), error);
    fs::path staging = target;
    staging += fmt::format(".part{}", ::getpid());
    if (!fs::create_directory(staging, error)) {
      if (error) return file_error(staging.string(), error);
      return make_error(
          ErrorCode::already_exists,
          fmt::format("{} is there already: another conversion is under way, or a killed one has left it; "
                      "remove it, or give another name",
                      staging.string()),
          "output");
    }
    return StagingDirectory(std::move(staging), std::move(target));
  }
  StagingDirectory(StagingDirectory&& other) noexcept
      : staging_(std::exchange(other.staging_, {})), target_(std::move(other.target_)) {}
  StagingDirectory(const StagingDirectory&) = delete;
  StagingDirectory& operator=(const StagingDirectory&) = delete;
  StagingDirectory& operator=(StagingDirectory&&) = delete;
  ~StagingDirectory() {
    std::error_code ignored;
    if (!staging_.empty()) fs::remove_all(staging_, ignored);
  }

  std::string path(const char* file) const { return (staging_ / file).string(); }
  std::string path() const { return staging_.string(); }

  Status write(const char* file, std::string_view text) const {
    ASSIGN_OR_RETURN(DataFile out, DataFile::create(path(file), file, text.size()));
    RETURN_IF_ERROR(out.write(0, std::as_bytes(std::span(text))));
    return out.finish();
  }

  Result<std::string> take_place(bool overwrite) {
    RETURN_IF_ERROR(check_target(target_, overwrite));
    std::error_code error;
    fs::path old;
    if (fs::exists(fs::symlink_status(target_, error))) {
      old = target_;
      old += fmt::format(".old{}", ::getpid());
      fs::rename(target_, old, error);
      if (error) return file_error(target_.string(), error);
    }
    fs::rename(staging_, target_, error);
    if (error) {
      std::error_code ignored;
      if (!old.empty()) fs::rename(old, target_, ignored);
      return file_error(target_.string(), error);
    }
    staging_.clear();
    if (!old.empty()) fs::remove_all(old, error);
    return target_.string();
  }

 private:
  StagingDirectory(fs::path staging, fs::path target) : staging_(std::move(staging)), target_(std::move(target)) {}

  static Status check_target(const fs::path& target, bool overwrite) {
    std::error_code error;
    if (!fs::exists(fs::symlink_status(target, error))) return ok_status();
    std::string hint = "give another name, or replace it with --overwrite";
    if (overwrite) {
      hint = "it is not a converted model, and only such are replaced";
      if (fs::is_directory(target, error) && !fs::is_symlink(target, error) && fs::exists(target / kGraphFile, error) &&
          fs::exists(target / kGenaiFile, error)) {
        ASSIGN_OR_RETURN(const std::string foreign, foreign_file(target));
        if (foreign.empty()) return ok_status();
        hint = fmt::format("'{}' in it is of no conversion and would be lost; move it away, or give another name",
                           foreign.substr(0, 200));
      }
    }
    return make_error(ErrorCode::already_exists, fmt::format("{} is there already; {}", target.string(), hint),
                      "output");
  }

  // Something that no conversion has written, such as the model that is to be converted; empty: nothing.
  static Result<std::string> foreign_file(const fs::path& folder) {
    std::error_code error;
    for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
         entry.increment(error)) {
      if (std::string name = entry->path().filename().string(); !is_written(name)) return name;
    }
    if (error) return file_error(folder.string(), error);
    return std::string();
  }

  fs::path staging_;
  fs::path target_;
};

EmitOptions emit_options(const ConvertOptions& options, int32_t max_positions) {
  EmitOptions emit;
  switch (options.operators) {
    case OnnxOperators::GenAI:
      emit.kind = GraphKind::genai;
      break;
    case OnnxOperators::Standard21:
      emit.kind = GraphKind::standard21;
      break;
    case OnnxOperators::Standard23:
      emit.kind = GraphKind::standard23;
      break;
  }
  const bool half = options.precision == Precision::Float16 || options.half_activations;
  emit.compute = half ? OnnxType::f16 : OnnxType::f32;
  emit.bits = options.precision == Precision::Int4 ? 4 : options.precision == Precision::Int8 ? 8 : 0;
  emit.block = options.block_size;
  emit.accuracy_level = options.accuracy_level;
  emit.max_positions = max_positions;
  return emit;
}

Result<int32_t> longest_sequence(const DecoderSpec& spec, int32_t wanted) {
  const int32_t longest = wanted == 0 ? spec.max_position : wanted;
  if (longest < 1 || longest > spec.max_position) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("max_model_len {} must be from 1 to {}, the longest context that the model defines",
                                  longest, spec.max_position),
                      "max_model_len");
  }
  if (longest > kMostPositions) {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("the model's context of {} tokens is more than the {} that a graph's tables of rotary "
                    "positions are made for; give a shorter one with --max-model-len",
                    longest, kMostPositions),
        "max_model_len");
  }
  return longest;
}

Status copy_files(const ModelDirectory& source, const StagingDirectory& staging) {
  for (const char* file : kCopiedFiles) {
    const Result<std::string> text = source.read(file, kMaxCopiedBytes);
    if (!text.ok() && text.error().code == ErrorCode::not_found) continue;
    if (!text.ok()) return text.error();
    RETURN_IF_ERROR(staging.write(file, *text));
  }
  return ok_status();
}

const char* precision_name(Precision precision) {
  constexpr std::array kNames = {"f32", "f16", "int8", "int4"};
  return kNames[static_cast<size_t>(precision)];
}

void describe_producer(OnnxModel& model, const DecoderSpec& spec, const ConvertOptions& options, int32_t longest) {
  model.producer_name = "inferneo";
  model.producer_version = INFERNEO_VERSION;
  model.data_file = kDataFile;
  model.metadata = {{"inferneo.architecture", spec.architecture},
                    {"inferneo.precision", precision_name(options.precision)},
                    {"inferneo.max_model_len", fmt::format("{}", longest)}};
}

// What the files say, before any weight is read.
struct Description {
  DecoderSpec spec;
  GenerationConfig generation;
};

Result<Description> describe(const ModelDirectory& source) {
  ASSIGN_OR_RETURN(const ModelFormat format, source.detect_format());
  if (format != ModelFormat::HuggingFace) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("model '{}' holds no safetensors; only models in Hugging Face "
                                  "layout can be converted",
                                  source.name()));
  }
  ASSIGN_OR_RETURN(const ConfigReader config, read_config(source));
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation,
                   read_optional_config(source, "generation_config.json"));
  Description description;
  ASSIGN_OR_RETURN(description.spec, describe_model(config));
  ASSIGN_OR_RETURN(description.generation, read_generation_config(config, generation, description.spec.vocab_size));
  return description;
}

}  // namespace

Status check_convert_options(const ConvertOptions& options) {
  constexpr std::array kBlocks = {0, 16, 32, 64, 128};  // 0: not asked for
  if (std::find(kBlocks.begin(), kBlocks.end(), options.block_size) == kBlocks.end()) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("block_size {} must be 16, 32, 64 or 128", options.block_size), "block_size");
  }
  if (options.accuracy_level < 0 || options.accuracy_level > 4) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("accuracy_level {} must be from 0 to 4", options.accuracy_level), "accuracy_level");
  }
  if (options.half_activations && options.precision == Precision::Float32) {
    return make_error(ErrorCode::invalid_argument,
                      "activations in f16 do not go with weights in f32; take --precision f16", "activations");
  }
  return ok_status();
}

Result<ConvertedModel> convert_directory(const ConvertRequest& request) {
  const auto begin = std::chrono::steady_clock::now();
  const ConvertOptions& options = request.options;
  RETURN_IF_ERROR(check_convert_options(options));
  ASSIGN_OR_RETURN(const Description description, describe(request.source));
  const DecoderSpec& spec = description.spec;
  ASSIGN_OR_RETURN(const int32_t longest, longest_sequence(spec, options.max_model_len));
  // Pages of a mapping that come and go: no budget counts them.
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(books, request.source.name(), request.source));
  ASSIGN_OR_RETURN(const std::vector<const SafetensorsTensor*> bound, bind_tensors(spec, checkpoint));
  ASSIGN_OR_RETURN(EmittedModel emitted, emit_model(spec, emit_options(options, longest)));
  describe_producer(emitted.model, spec, options, longest);

  ASSIGN_OR_RETURN(StagingDirectory staging, StagingDirectory::create(request.output, options.overwrite));
  const std::string graph = encode_onnx(emitted.model);
  RETURN_IF_ERROR(staging.write(kGraphFile, graph));
  RETURN_IF_ERROR(copy_files(request.source, staging));
  RETURN_IF_ERROR(staging.write(kGenaiFile, genai_config_text(emitted.decoder, description.generation)));
  ASSIGN_OR_RETURN(DataFile data, DataFile::create(staging.path(kDataFile), kDataFile, emitted.data_bytes));
  const auto report = [&](uint64_t done, uint64_t total) {
    return options.on_progress ? options.on_progress({"writing weights", done, total}) : ok_status();
  };
  RETURN_IF_ERROR(write_weights({spec, checkpoint, bound, longest}, emitted.jobs, data, request.pool, report));
  RETURN_IF_ERROR(data.finish());
  if (request.accept) RETURN_IF_ERROR(request.accept(staging.path()));

  ConvertedModel converted;
  ASSIGN_OR_RETURN(converted.path, staging.take_place(options.overwrite));
  if (const Status kept = OwnGraphs(request.home).add(std::as_bytes(std::span(graph))); !kept.ok()) {
    log_warning("{} is not known as ours, so it is looked at like a graph from elsewhere when it is loaded: {}",
                converted.path, kept.error().message);
  }
  converted.graph_bytes = graph.size();
  converted.data_bytes = emitted.data_bytes;
  converted.source_bytes = checkpoint.total_bytes();
  converted.max_model_len = longest;
  converted.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return converted;
}

}  // namespace inferneo
