#include "app/model_loading.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/log.h"
#include "formats/generation_config.h"
#include "formats/model_source.h"
#include "models/transformers/loader.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
// For idle models to leave the memory; the unload of a large one takes a good part of a second.
constexpr Duration kStarvationPatience = std::chrono::seconds(5);
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

Result<std::string> read_optional_file(const ModelDirectory& directory, const char* file, size_t max_bytes) {
  Result<std::string> text = directory.read(file, max_bytes);
  // Only a file that is not there is left out: one that may not be read is an error, as it is for the others.
  if (!text.ok() && text.error().code == ErrorCode::not_found) return std::string();
  return text;
}

// The operator's own template, named on the command line or in the configuration.
Result<std::string> read_template_override(const std::string& path) {
  Result<std::string> text = read_named_file(path, "chat_template", kMaxTemplateBytes);
  if (text.ok()) return text;
  Error error = std::move(text).error();
  error.param = "chat_template";
  return error;
}

Result<std::shared_ptr<const Tokenizer>> load_directory_tokenizer(const ModelDirectory& directory,
                                                                  const EngineConfig& config) {
  TokenizerFiles files;
  ASSIGN_OR_RETURN(files.tokenizer_json, directory.read("tokenizer.json", kMaxTokenizerBytes));
  ASSIGN_OR_RETURN(files.tokenizer_config_json,
                   read_optional_file(directory, "tokenizer_config.json", kMaxTokenizerBytes));
  if (!config.chat_template.empty()) {
    ASSIGN_OR_RETURN(files.chat_template_jinja, read_template_override(config.chat_template));
  } else {
    ASSIGN_OR_RETURN(files.chat_template_jinja,
                     read_optional_file(directory, "chat_template.jinja", kMaxTemplateBytes));
  }
  return load_tokenizer(files);
}

Result<GenerationDefaults> read_defaults(const ModelDirectory& directory, int64_t vocab_size) {
  ASSIGN_OR_RETURN(const ConfigReader config, read_config(directory));
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation,
                   read_optional_config(directory, "generation_config.json"));
  ASSIGN_OR_RETURN(const GenerationConfig parsed, read_generation_config(config, generation, vocab_size));
  GenerationDefaults defaults;
  defaults.temperature = parsed.temperature;
  defaults.top_p = parsed.top_p;
  defaults.top_k = parsed.top_k;
  defaults.min_p = parsed.min_p;
  defaults.repetition_penalty = parsed.repetition_penalty;
  if (parsed.do_sample && !*parsed.do_sample) defaults.temperature = 0.0F;  // the authors decode greedily
  return defaults;
}

class DirectoryLoader final : public ModelLoader {
 public:
  explicit DirectoryLoader(const LoadingContext& context) : context_(context) {}

  Result<size_t> estimate(const ModelRegistration& registration) override {
    ASSIGN_OR_RETURN(const Found found, find(registration));
    return (this->*found.row->estimate)(registration, found.source.directory);
  }

  Result<std::shared_ptr<LoadedModel>> load(const ModelRegistration& registration) override {
    const TimePoint start = context_.clock.now();
    ASSIGN_OR_RETURN(const Found found, find(registration));
    const ModelSource& source = found.source;
    ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner, (this->*found.row->load)(registration, source.directory));
    ASSIGN_OR_RETURN(std::shared_ptr<LoadedModel> model, assemble(registration, source.directory, std::move(runner)));
    const ModelSpec& spec = model->spec;
    log_info("{}: {} in {}, {:.2f} GiB, context {}, on {}, loaded in {:.2f} s", registration.id, spec.architecture,
             spec.dtype, static_cast<double>(spec.weight_bytes) / kGiB, model->max_model_len, spec.device,
             to_seconds(context_.clock.now() - start));
    return model;
  }

 private:
  using LoadFunction = Result<std::unique_ptr<ModelRunner>> (DirectoryLoader::*)(const ModelRegistration&,
                                                                                 const ModelDirectory&);
  // One row per format that has a runner.
  using EstimateFunction = Result<size_t> (DirectoryLoader::*)(const ModelRegistration&, const ModelDirectory&);
  struct Row {
    ModelFormat format;
    LoadFunction load;
    EstimateFunction estimate;
  };
  struct Found {
    ModelSource source;
    const Row* row = nullptr;
  };
  static const std::array<Row, 1> kRows;

  Result<Found> find(const ModelRegistration& registration) const {
    ModelSourceOptions options;
    options.hub_cache = context_.config.hub_cache;
    options.roots = context_.config.model_roots;
    options.named_by_operator = true;
    ASSIGN_OR_RETURN(ModelSource source, resolve_model_source(registration.source, options));
    ASSIGN_OR_RETURN(const ModelFormat format, source.directory.detect_format());
    const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return r.format == format; });
    if (row == kRows.end()) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} is a {} model, and there is no runner for that format yet; use a directory in "
                                    "Hugging Face layout with safetensors",
                                    registration.source, model_format_name(format)));
    }
    return Found{std::move(source), &*row};
  }

  LoadOptions transformers_options(const ModelRegistration& registration, const ModelDirectory& directory) const {
    const EngineConfig& config = context_.config;
    LoadOptions options;
    options.directory = &directory;
    options.model_name = registration.id;
    options.ledger = &context_.ledger;
    options.pool = &context_.pool;
    options.isa = config.isa;
    options.kv_cache_dtype = config.kv_cache_dtype;
    options.block_size = config.enable_paged_attention ? config.block_size : 0;
    options.max_model_len = config.max_model_len.value_or(0);
    return options;
  }

  Result<size_t> estimate_transformers(const ModelRegistration& registration, const ModelDirectory& directory) {
    return estimate_transformers_memory(transformers_options(registration, directory),
                                        core_config(registration.id).max_num_batched_tokens);
  }

  Result<std::unique_ptr<ModelRunner>> load_transformers(const ModelRegistration& registration,
                                                         const ModelDirectory& directory) {
    const EngineConfig& config = context_.config;
    LoadOptions options = transformers_options(registration, directory);
    if (context_.progress) {
      options.progress = [this, id = registration.id](const LoadProgress& progress) {
        context_.progress({id, progress.stage, progress.bytes_done, progress.bytes_total});
      };
    }
    ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner, load_transformers_model(options));
    if (config.dtype != "auto" && config.dtype != runner->spec().dtype) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} is stored in {}; converting it to dtype {} at load is not there yet, use auto",
                                    registration.source, runner->spec().dtype, config.dtype),
                        "dtype");
    }
    return runner;
  }

  Result<std::shared_ptr<LoadedModel>> assemble(const ModelRegistration& registration, const ModelDirectory& directory,
                                                std::unique_ptr<ModelRunner> runner) {
    auto model = std::make_shared<LoadedModel>();
    model->id = registration.id;
    model->root = registration.source;
    model->spec = runner->spec();
    ASSIGN_OR_RETURN(model->tokenizer, load_directory_tokenizer(directory, context_.config));
    if (model->tokenizer->vocab_size() > model->spec.vocab_size) {
      return make_error(
          ErrorCode::malformed,
          fmt::format("{}: the tokenizer has {} tokens and the model's vocab_size is {}; the files do not "
                      "belong together",
                      registration.source, model->tokenizer->vocab_size(), model->spec.vocab_size));
    }
    ASSIGN_OR_RETURN(model->defaults, read_defaults(directory, model->spec.vocab_size));
    ASSIGN_OR_RETURN(model->core, EngineCore::create(core_config(registration.id), std::move(runner), context_.ledger,
                                                     context_.clock));
    model->max_model_len = model->core->max_model_len();
    return model;
  }

  EngineCoreConfig core_config(const std::string& id) const {
    const EngineConfig& config = context_.config;
    EngineCoreConfig core;
    core.model = id;
    core.max_num_seqs = config.max_num_seqs;
    core.max_num_batched_tokens = std::max(config.max_num_batched_tokens, config.max_num_seqs);
    core.max_model_len = config.max_model_len.value_or(0);
    const size_t num_models = std::max<size_t>(config.model.size(), 1);
    core.max_kv_bytes = static_cast<size_t>(config.kv_cache_gb * kGiB) / num_models;
    core.enable_prefix_caching = config.enable_prefix_caching && config.enable_paged_attention;
    core.enable_paged_attention = config.enable_paged_attention;
    core.starvation_patience = kStarvationPatience;
    core.max_queued_requests = config.max_queue_requests;
    core.max_queued_tokens = config.max_queue_tokens;
    return core;
  }

  LoadingContext context_;
};

const std::array<DirectoryLoader::Row, 1> DirectoryLoader::kRows = {
    DirectoryLoader::Row{ModelFormat::huggingface, &DirectoryLoader::load_transformers,
                         &DirectoryLoader::estimate_transformers},
};

}  // namespace

std::unique_ptr<ModelLoader> make_model_loader(const LoadingContext& context) {
  return std::make_unique<DirectoryLoader>(context);
}

}  // namespace inferneo
