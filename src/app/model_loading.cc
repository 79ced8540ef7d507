#include "app/model_loading.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <future>
#include <system_error>
#include <utility>

#include "app/compute_device.h"
#include "app/hub_access.h"
#include "app/tenants.h"
#include "base/config/field.h"
#include "base/config/load.h"
#include "base/config/suggest.h"
#include "base/log.h"
#include "base/system.h"
#include "formats/generation_config.h"
#include "formats/model_source.h"
#include "models/cuda/cuda_loader.h"
#include "models/onnx/onnx_loader.h"
#include "models/transformers/loader.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
// Of a request that finds no KV memory: for idle models to leave, and for busy ones to finish, on a machine that has
// other things to do as well. Only two models that need each other's memory wait it out.
constexpr Duration kStarvationPatience = std::chrono::seconds(30);

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

constexpr const char* kTemplate = "chat_template";

// The template that came with a registration over the API, which holds its text, where the operator's own names a file.
const std::string* template_text_of(const ModelRecord& record) {
  if (record.origin != RecordOrigin::api) return nullptr;
  const auto found = record.settings.find(kTemplate);
  return found == record.settings.end() || found->second.empty() ? nullptr : &found->second;
}

// An override that does not compile, with its place. A model's own is its authors': it fails the chats alone.
Status check_override(std::string_view text) {
  const Status compiled = check_chat_template(text);
  if (compiled.ok()) return ok_status();
  return make_error(ErrorCode::invalid_argument, fmt::format("chat_template: {}", compiled.error().message), kTemplate);
}

Status check_template_text(const std::string& text) {
  if (text.find("{{") == std::string::npos && text.find("{%") == std::string::npos) {
    return make_error(ErrorCode::invalid_argument,
                      "chat_template is the template itself here, and this text has no Jinja in it; a file is read by "
                      "inferneo register --chat-template FILE",
                      kTemplate);
  }
  return check_override(text);
}

// `text`: of the model's record; null: it has none.
Result<std::shared_ptr<const Tokenizer>> load_directory_tokenizer(const ModelDirectory& directory,
                                                                  const EngineConfig& config, const std::string* text) {
  TokenizerFiles files;
  ASSIGN_OR_RETURN(files.tokenizer_json, directory.read("tokenizer.json", kMaxTokenizerBytes));
  ASSIGN_OR_RETURN(files.tokenizer_config_json,
                   read_optional_file(directory, "tokenizer_config.json", kMaxTokenizerBytes));
  if (text != nullptr) {
    files.chat_template_jinja = *text;
  } else if (!config.chat_template.empty()) {
    ASSIGN_OR_RETURN(files.chat_template_jinja, read_template_override(config.chat_template));
    RETURN_IF_ERROR(check_override(files.chat_template_jinja));
  } else {
    ASSIGN_OR_RETURN(files.chat_template_jinja,
                     read_optional_file(directory, "chat_template.jinja", kMaxTemplateBytes));
  }
  return load_tokenizer(files);
}

GenerationDefaults defaults_of(const GenerationConfig& parsed) {
  GenerationDefaults defaults;
  defaults.temperature = parsed.temperature;
  defaults.top_p = parsed.top_p;
  defaults.top_k = parsed.top_k;
  defaults.min_p = parsed.min_p;
  defaults.repetition_penalty = parsed.repetition_penalty;
  if (parsed.do_sample && !*parsed.do_sample) defaults.temperature = 0.0F;  // the authors decode greedily
  return defaults;
}

// Without exceptions: a name that no path can have is not there.
bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) && !error;
}

// The engine's configuration for one model: the server's, with what the model's record sets.
Result<EngineConfig> config_of(const EngineConfig& server, const ModelRecord& record) {
  EngineConfig config = server;
  for (const auto& [name, value] : record.settings) {
    if (record.origin == RecordOrigin::api && name == kTemplate) continue;  // a text and no file's name
    const ConfigField* const field = find_config_field(name);
    if (field == nullptr || !field->per_model) {
      std::vector<std::string_view> known;
      for (const ConfigField& row : config_fields()) {
        if (row.per_model) known.push_back(row.name);
      }
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("'{}' is no setting of a model{}; there are {}", name.substr(0, 128),
                                    did_you_mean(name, known), fmt::join(known, ", ")),
                        "settings");
    }
    const std::vector<std::string> values = {value};
    if (Status set = set_field(config, *field, values); !set.ok()) {
      return make_error(ErrorCode::invalid_argument, fmt::format("{}: {}", name, set.error().message), "settings");
    }
  }
  RETURN_IF_ERROR(validate_config(config));
  return config;
}

// As it is written after MODEL on a command line.
std::string source_text(const ModelRecord& record) {
  return record.revision.empty() ? record.source : record.source + "@" + record.revision;
}

Result<HubId> hub_id_of(const ModelRecord& record) { return parse_hub_id(source_text(record)); }

Result<ModelSource> resolve(const EngineConfig& config, const ModelRecord& record) {
  ModelSourceOptions options;
  options.hub_cache = config.hub_cache;
  options.roots = config.model_roots;
  options.named_by_operator = record.origin == RecordOrigin::config;
  return resolve_model_source(source_text(record), options);
}

constexpr Duration kWarmUpLook = std::chrono::milliseconds(200);  // whether the load is still wanted

// The end of a warm-up.
class FirstTokens final : public TokenSink {
 public:
  void on_token(int32_t, Token, const TokenLogprobs*, bool) override {}
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { promise_.set_value(outcome); }

 private:
  std::promise<RequestOutcome> promise_;

 public:
  std::future<RequestOutcome> done = promise_.get_future();
};

class DirectoryLoader final : public ModelLoader {
 public:
  explicit DirectoryLoader(const LoadingContext& context) : context_(context) {}

  Status check(const ModelRecord& record) override { return check_registration(context_.config, record); }

  bool can_fetch(const ModelRecord& record) override {
    return !context_.config.hub_offline && !exists(record.source) && hub_id_of(record).ok();
  }

  Status fetch(const ModelRecord& record, const LoadReport& report, std::stop_token stop) override {
    ASSIGN_OR_RETURN(const HubId id, hub_id_of(record));
    HubPull pull{.id = id, .stop = std::move(stop)};
    pull.on_progress = [&](const HubProgress& progress) {
      (void)report({"downloading", progress.bytes_done, progress.bytes_total});  // `stop` ends it
    };
    log_info("{}: downloading {} from the hub", record.id.text(), id.repository);
    const Result<HubSnapshot> snapshot = pull_snapshot(hub_access(context_.config), pull);
    if (snapshot.ok()) return ok_status();
    Error error = snapshot.error();
    if (record.origin == RecordOrigin::config) error.message += no_directory_hint(record.source);
    return error;
  }

  Result<std::vector<FileCheck>> verify(const ModelRecord& record) override {
    ASSIGN_OR_RETURN(const Found found, find(record));
    const ModelSource& source = found.source;
    if (found.row->format != ModelFormat::HuggingFace) return ModelLoader::verify(record);
    ASSIGN_OR_RETURN(const std::vector<WeightFileCheck> files, context_.weights.verify(source.directory));
    std::vector<FileCheck> checks;
    for (const WeightFileCheck& file : files) {
      FileCheck check{.file = file.file};
      std::error_code error;
      const auto bytes = std::filesystem::file_size(source.directory.path() + "/" + file.file, error);
      if (!error) check.bytes = bytes;
      if (!file.expected.empty()) check.state = file.matches() ? FileCheck::State::ok : FileCheck::State::changed;
      checks.push_back(std::move(check));
    }
    return checks;
  }

  Result<size_t> estimate(const ModelRecord& record) override {
    ASSIGN_OR_RETURN(const ModelFootprint footprint, this->footprint(record));
    return footprint.load_bytes;
  }

  Result<ModelFootprint> footprint(const ModelRecord& record) override {
    ASSIGN_OR_RETURN(const Found found, find(record));
    return (this->*found.row->estimate)(found);
  }

  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    const TimePoint start = context_.clock.now();
    RETURN_IF_ERROR(report({"opening files"}));
    ASSIGN_OR_RETURN(const Found found, find(record));
    // Beside the weights: a large vocabulary takes longer to read than mapped weights take.
    auto tokenizer = std::async(std::launch::async, [&] {
      return load_directory_tokenizer(found.source.directory, found.config, template_text_of(record));
    });
    ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner, (this->*found.row->load)(found, report));
    ASSIGN_OR_RETURN(std::shared_ptr<LoadedModel> model, assemble(found, std::move(runner), tokenizer, report));
    if (found.config.warm_up) RETURN_IF_ERROR(warm_up(*model, report));
    const ModelSpec& spec = model->spec;
    const std::string type = spec.dtype == spec.stored_dtype
                                 ? spec.dtype
                                 : fmt::format("{} ({:.2f} bits per weight)", spec.dtype, spec.bits_per_weight);
    log_info("{}: {} in {}, {:.2f} GiB, context {}, on {}, weights {}, loaded in {:.2f} s", found.id, spec.architecture,
             type, static_cast<double>(spec.weight_bytes) / kGiB, model->max_model_len, spec.device, spec.weight_origin,
             to_seconds(context_.clock.now() - start));
    return model;
  }

 private:
  struct Row;
  // What there is to load.
  struct Found {
    std::string id;
    std::string source_name;  // as it was written
    EngineConfig config;
    ModelSource source;
    const Row* row = nullptr;
  };
  // One row per format that has a runner.
  using LoadFunction = Result<std::unique_ptr<ModelRunner>> (DirectoryLoader::*)(const Found&, const LoadReport&);
  using EstimateFunction = Result<ModelFootprint> (DirectoryLoader::*)(const Found&);
  using GenerationFunction = Result<GenerationConfig> (DirectoryLoader::*)(const Found&, int64_t vocab_size);
  struct Row {
    ModelFormat format;
    LoadFunction load;
    EstimateFunction estimate;
    GenerationFunction generation;
  };
  static const std::array<Row, 2> kRows;

  // The format to open: the one asked for, where the files can be opened so.
  static Result<ModelFormat> format_of(const ModelRecord& record, const ModelSource& source) {
    if (!source.file.empty() && (!record.format || *record.format == ModelFormat::ONNX)) return ModelFormat::ONNX;
    if (record.format) {
      ASSIGN_OR_RETURN(const bool has, source.directory.has_format(*record.format));
      if (has) return *record.format;
    }
    return source.directory.detect_format();
  }

  Result<Found> find(const ModelRecord& record) const {
    ASSIGN_OR_RETURN(EngineConfig config, config_of(context_.config, record));
    ASSIGN_OR_RETURN(ModelSource source, resolve(context_.config, record));
    ASSIGN_OR_RETURN(const ModelFormat format, format_of(record, source));
    if (record.format && *record.format != format) {
      return make_error(ErrorCode::malformed,
                        fmt::format("{} was registered as a {} model, and its files are those of a {} model",
                                    record.source, model_format_name(*record.format), model_format_name(format)),
                        "format");
    }
    const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return r.format == format; });
    if (row == kRows.end()) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} is a {} model, and there is no runner for that format yet; use a directory in "
                                    "Hugging Face layout with safetensors, or an ONNX graph",
                                    record.source, model_format_name(format)));
    }
    return Found{record.id.text(), record.source, std::move(config), std::move(source), &*row};
  }

  LoadOptions transformers_options(const Found& found) const {
    const EngineConfig& config = found.config;
    LoadOptions options;
    options.directory = &found.source.directory;
    options.model_name = found.id;
    options.ledger = &context_.host;
    options.pool = &context_.pool;
    options.store = &context_.weights;
    options.isa = config.isa;
    options.quantization = config.quantization;
    options.kv_cache_dtype = config.kv_cache_dtype;
    options.block_size = config.enable_paged_attention ? config.block_size : 0;
    options.max_model_len = config.max_model_len.value_or(0);
    return options;
  }

  cuda::CudaLoadOptions cuda_options(const Found& found) const {
    cuda::CudaLoadOptions options;
    options.model = transformers_options(found);
    options.device = context_.gpu;
    options.ledger = &context_.ledger;
    options.deterministic = found.config.deterministic;
    options.enable_graphs = found.config.enable_cuda_graph;
    options.max_num_seqs = found.config.max_num_seqs;
    return options;
  }

  // Graphs are computed on the CPU, whatever device is set.
  Result<bool> is_on_gpu(const Found& found) const {
    if (found.row->format == ModelFormat::ONNX) return false;
    return computes_on_gpu(found.config.device, context_.gpu.get());
  }

  // Of the ledger that the manager looks at; a model on the CPU beside a GPU takes none of that.
  Result<ModelFootprint> estimate_transformers(const Found& found) {
    ASSIGN_OR_RETURN(const bool on_gpu, computes_on_gpu(found.config.device, context_.gpu.get()));
    const int32_t tokens = core_config(found).max_num_batched_tokens;
    ASSIGN_OR_RETURN(MemoryEstimate memory, on_gpu ? cuda::estimate_cuda_memory(cuda_options(found), tokens)
                                                   : estimate_transformers_memory(transformers_options(found), tokens));
    if (!on_gpu && context_.gpu != nullptr) memory.bytes = 0;
    return ModelFootprint{memory.bytes, memory.first_context, memory.kv_bytes_per_token, memory.max_model_len,
                          memory.dtype};
  }

  Result<std::unique_ptr<ModelRunner>> load_transformers(const Found& found, const LoadReport& report) {
    ASSIGN_OR_RETURN(const bool on_gpu, computes_on_gpu(found.config.device, context_.gpu.get()));
    cuda::CudaLoadOptions options = cuda_options(found);
    options.model.progress = [&](const LoadProgress& progress) {
      return report({progress.stage, progress.bytes_done, progress.bytes_total});
    };
    ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner,
                     on_gpu ? cuda::load_cuda_model(options) : load_transformers_model(options.model));
    if (found.config.dtype != "auto" && found.config.dtype != runner->spec().stored_dtype) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} is stored in {}; converting it to dtype {} at load is not there yet, use auto",
                                    found.source_name, runner->spec().stored_dtype, found.config.dtype),
                        "dtype");
    }
    return runner;
  }

  Result<GenerationConfig> generation_transformers(const Found& found, int64_t vocab_size) {
    const ModelDirectory& directory = found.source.directory;
    ASSIGN_OR_RETURN(const ConfigReader config, read_config(directory));
    ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation,
                     read_optional_config(directory, "generation_config.json"));
    return read_generation_config(config, generation, vocab_size);
  }

  // A graph has its types and its weights as they are: what would change them is refused, not passed over.
  static Status check_onnx_settings(const Found& found) {
    const EngineConfig& config = found.config;
    const auto fixed = [&](const char* field, const std::string& value, std::string_view free) {
      if (value == free) return ok_status();
      return Status(
          make_error(ErrorCode::unsupported,
                     fmt::format("{} is an ONNX graph, whose types were fixed when it was written: {} {} cannot "
                                 "be had of it; convert the model again, or leave {} at {}",
                                 found.source_name, field, value, field, free),
                     field));
    };
    RETURN_IF_ERROR(fixed("dtype", config.dtype, "auto"));
    RETURN_IF_ERROR(fixed("quantization", config.quantization, "none"));
    return fixed("kv_cache_dtype", config.kv_cache_dtype, "auto");
  }

  onnx::OnnxLoadOptions onnx_options(const Found& found) const {
    const EngineConfig& config = found.config;
    using When = onnx::GraphCheckOptions::When;
    onnx::OnnxLoadOptions options;
    options.directory = &found.source.directory;
    options.file = found.source.file;
    options.model_name = found.id;
    options.ledger = &context_.host;
    options.pool = &context_.pool;
    options.library = config.onnxruntime;
    options.home = config.home;
    options.check.when = config.onnx_check == "always"  ? When::always
                         : config.onnx_check == "never" ? When::never
                                                        : When::foreign;
    options.max_model_len = config.max_model_len.value_or(0);
    return options;
  }

  Result<ModelFootprint> estimate_onnx(const Found& found) {
    const EngineCoreConfig core = core_config(found);
    ASSIGN_OR_RETURN(const onnx::OnnxEstimate memory,
                     onnx::estimate_onnx_memory(onnx_options(found), core.max_num_seqs, core.max_num_batched_tokens));
    // Beside a GPU the manager looks at that one's memory, of which a graph takes none.
    return ModelFootprint{context_.gpu != nullptr ? 0 : memory.bytes, memory.max_model_len, memory.kv_bytes_per_token,
                          memory.max_model_len, memory.dtype};
  }

  Result<std::unique_ptr<ModelRunner>> load_onnx(const Found& found, const LoadReport& report) {
    RETURN_IF_ERROR(check_onnx_settings(found));
    onnx::OnnxLoadOptions options = onnx_options(found);
    options.progress = [&](const char* stage) { return report({stage}); };
    return onnx::load_onnx_model(options);
  }

  Result<GenerationConfig> generation_onnx(const Found& found, int64_t) {
    ASSIGN_OR_RETURN(onnx::OnnxDescription about, onnx::describe_onnx(found.source.directory, found.source.file));
    return std::move(about.generation);
  }

  Result<std::shared_ptr<LoadedModel>> assemble(const Found& found, std::unique_ptr<ModelRunner> runner,
                                                std::future<Result<std::shared_ptr<const Tokenizer>>>& tokenizer,
                                                const LoadReport& report) {
    auto model = std::make_shared<LoadedModel>();
    model->id = found.id;
    model->root = found.source_name;
    model->format = found.row->format;
    model->spec = runner->spec();
    RETURN_IF_ERROR(report({"reading the tokenizer"}));
    ASSIGN_OR_RETURN(model->tokenizer, tokenizer.get());
    if (model->tokenizer->vocab_size() > model->spec.vocab_size) {
      return make_error(
          ErrorCode::malformed,
          fmt::format("{}: the tokenizer has {} tokens and the model's vocab_size is {}; the files do not "
                      "belong together",
                      found.source_name, model->tokenizer->vocab_size(), model->spec.vocab_size));
    }
    ASSIGN_OR_RETURN(const GenerationConfig generation, (this->*found.row->generation)(found, model->spec.vocab_size));
    model->defaults = defaults_of(generation);
    RETURN_IF_ERROR(report({"starting the engine"}));
    ASSIGN_OR_RETURN(const bool on_gpu, is_on_gpu(found));
    MemoryLedger& ledger = on_gpu ? context_.ledger : context_.host;
    ASSIGN_OR_RETURN(model->core, EngineCore::create(core_config(found), std::move(runner), ledger, context_.clock));
    model->max_model_len = model->core->max_model_len();
    return model;
  }

  // So that what a first step alone costs (pages of weights and of the workspace, threads that sleep) is no client's to
  // wait for, and a model that cannot compute is found before anybody asks it. In no metric of requests.
  static Status warm_up(const LoadedModel& model, const LoadReport& report) {
    constexpr int32_t kPromptTokens = 16;
    const int32_t prompt = std::clamp(model.max_model_len / 2, 1, kPromptTokens);
    const auto sink = std::make_shared<FirstTokens>();
    Request request;
    request.prompt.assign(static_cast<size_t>(prompt), 0);
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = std::min(2, model.max_model_len - prompt);
    request.sampling.ignore_eos = true;
    request.sink = sink;
    RETURN_IF_ERROR(report({"warming up"}));
    if (*request.sampling.max_tokens < 1) return ok_status();
    RETURN_IF_ERROR(model.core->warm_up(std::move(request)));
    while (sink->done.wait_for(kWarmUpLook) != std::future_status::ready) RETURN_IF_ERROR(report({"warming up"}));
    const RequestOutcome outcome = sink->done.get();
    if (!outcome.error) return ok_status();
    Error error = *outcome.error;
    if (error.code == ErrorCode::out_of_memory) {  // idle work gets spare memory alone; a request may get more
      log_info("{}: not warmed up, since memory is short", model.id);
      return ok_status();
    }
    error.message = fmt::format("its first tokens could not be computed: {}", error.message);
    return error;
  }

  EngineCoreConfig core_config(const Found& found) const {
    const EngineConfig& config = found.config;
    EngineCoreConfig core;
    core.model = found.id;
    core.max_num_seqs = config.max_num_seqs;
    core.max_num_batched_tokens =
        std::max(config.max_num_batched_tokens.value_or(core.max_num_batched_tokens), config.max_num_seqs);
    if (!config.max_num_batched_tokens) {
      core.inter_token_target =
          std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(config.inter_token_target_ms));
    }
    core.max_model_len = config.max_model_len.value_or(0);
    const size_t num_models = std::max<size_t>(config.model.size() + config.models.size(), 1);
    core.max_kv_bytes = static_cast<size_t>(config.kv_cache_gb * kGiB) / num_models;
    core.enable_prefix_caching = config.enable_prefix_caching && config.enable_paged_attention;
    core.enable_paged_attention = config.enable_paged_attention;
    core.num_speculative_tokens = config.enable_speculative_decoding ? config.num_speculative_tokens : 0;
    core.starvation_patience = kStarvationPatience;
    core.idle_trim_after.reset();
    if (config.kv_keep_alive > 0.0) {
      core.idle_trim_after = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.kv_keep_alive));
    }
    core.idle_gate = context_.idle_gate;
    core.max_queued_requests = config.max_queue_requests;
    core.max_queued_tokens = config.max_queue_tokens;
    core.several_tenants = num_api_keys(config) > 1;
    return core;
  }

  LoadingContext context_;
};

const std::array<DirectoryLoader::Row, 2> DirectoryLoader::kRows = {
    DirectoryLoader::Row{ModelFormat::HuggingFace, &DirectoryLoader::load_transformers,
                         &DirectoryLoader::estimate_transformers, &DirectoryLoader::generation_transformers},
    DirectoryLoader::Row{ModelFormat::ONNX, &DirectoryLoader::load_onnx, &DirectoryLoader::estimate_onnx,
                         &DirectoryLoader::generation_onnx},
};

}  // namespace

Status check_settings(const EngineConfig& config, const ModelRecord& record) {
  ASSIGN_OR_RETURN(const EngineConfig own, config_of(config, record));
  const std::string* const text = template_text_of(record);
  return text == nullptr ? ok_status() : check_template_text(*text);
}

Status check_registration(const EngineConfig& config, const ModelRecord& record) {
  RETURN_IF_ERROR(check_settings(config, record));
  if (record.origin != RecordOrigin::api) return ok_status();
  const Result<ModelSource> source = resolve(config, record);
  if (source.ok() || source.error().code == ErrorCode::not_found) return ok_status();
  return source.error();
}

std::unique_ptr<ModelLoader> make_model_loader(const LoadingContext& context) {
  return std::make_unique<DirectoryLoader>(context);
}

}  // namespace inferneo
