#include "app/model_loading.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <future>
#include <system_error>
#include <utility>

#include "app/compute_device.h"
#include "app/draft_loading.h"
#include "app/hub_access.h"
#include "app/model_files.h"
#include "app/onnx_settings.h"
#include "app/sleeping_model.h"
#include "app/tenants.h"
#include "app/warm_up.h"
#include "base/log.h"
#include "base/system.h"
#include "engine/draft_model.h"
#include "models/cuda/cuda_loader.h"
#include "models/onnx/graph_loader.h"
#include "models/onnx/onnx_loader.h"
#include "models/transformers/loader.h"

namespace inferneo {
namespace {

// Of a request that finds no KV memory: for idle models to leave, and for busy ones to finish, on a machine that has
// other things to do as well. Only two models that need each other's memory wait it out.
constexpr Duration kStarvationPatience = std::chrono::seconds(30);

class DirectoryLoader final : public ModelLoader {
 public:
  explicit DirectoryLoader(const LoadingContext& context) : context_(context) {}

  Status check(const ModelRecord& record) override { return check_registration(context_.config, record); }

  bool can_fetch(const ModelRecord& record) override { return !context_.config.hub_offline && !on_hub(record).empty(); }

  Status fetch(const ModelRecord& record, const LoadReport& report, std::stop_token stop) override {
    for (const ModelRecord& wanted : on_hub(record)) {
      ASSIGN_OR_RETURN(const HubId id, model_hub_id(wanted));
      HubPull pull{.id = id, .stop = stop};
      pull.on_progress = [&](const HubProgress& progress) {
        (void)report({"downloading", progress.bytes_done, progress.bytes_total});  // `stop` ends it
      };
      log_info("{}: downloading {} from the hub", record.id.text(), id.repository);
      const Result<HubSnapshot> snapshot = pull_snapshot(hub_access(context_.config), pull);
      if (snapshot.ok()) continue;
      Error error = snapshot.error();
      if (record.origin == RecordOrigin::config) error.message += no_directory_hint(wanted.source);
      return error;
    }
    return ok_status();
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
    ASSIGN_OR_RETURN(ModelFootprint whole, (this->*found.row->estimate)(found));
    ASSIGN_OR_RETURN(const std::optional<Found> draft, find_draft(found, record));
    if (!draft) return whole;
    Result<ModelFootprint> of_draft = (this->*draft->row->estimate)(*draft);
    if (!of_draft.ok()) return error_of_draft(std::move(of_draft).error(), draft->source_name);
    whole.load_bytes += of_draft->load_bytes;
    whole.kv_bytes_per_token += of_draft->kv_bytes_per_token;
    return whole;
  }

  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    const TimePoint start = context_.clock.now();
    RETURN_IF_ERROR(report({"opening files"}));
    ASSIGN_OR_RETURN(const Found found, find(record));
    ASSIGN_OR_RETURN(const ModelKind kind, kind_of(found));
    if (kind != ModelKind::generator) return load_graph(found, kind, record, report);
    // Beside the weights and the first tokens: a large vocabulary takes longer to read than those of mapped weights.
    const std::shared_ptr<CacheMemory> token_memory = token_memory_of(found);
    auto tokenizer = std::async(std::launch::async, [&] {
      return load_model_tokenizer(found.source.directory, found.config, template_text_of(record), token_memory);
    });
    ASSIGN_OR_RETURN(const std::optional<Found> draft, find_draft(found, record));
    if (draft) {
      RETURN_IF_ERROR(check_same_vocabulary(found.source.directory, found.source_name, draft->source.directory,
                                            draft->source_name));
    }
    if (!draft && !found.config.draft_model.empty()) {
      log_warning("{}: draft_model is set, and enable_speculative_decoding is not: no draft is loaded", found.id);
    }
    Runners runners;
    ASSIGN_OR_RETURN(runners.model, (this->*found.row->load)(found, report));
    if (draft) {
      Result<std::unique_ptr<ModelRunner>> runner = (this->*draft->row->load)(*draft, report);
      if (!runner.ok()) return error_of_draft(std::move(runner).error(), draft->source_name);
      runners.draft = std::move(runner).value();
      log_info("{}: {} guesses for it, {:.2f} GiB, weights {}", found.id, draft->source_name,
               static_cast<double>(runners.draft->spec().weight_bytes) / kGiB, runners.draft->spec().weight_origin);
    }
    ASSIGN_OR_RETURN(std::shared_ptr<LoadedModel> model, assemble(found, std::move(runners), report));
    if (found.config.warm_up) RETURN_IF_ERROR(warm_up(*model, report));
    RETURN_IF_ERROR(report({"reading the tokenizer"}));
    ASSIGN_OR_RETURN(model->tokenizer, tokenizer.get());
    RETURN_IF_ERROR(check_vocabulary(found, *model->tokenizer, model->spec.vocab_size));
    model->token_memory = token_memory;
    const ModelSpec& spec = model->spec;
    const std::string type = spec.dtype == spec.stored_dtype
                                 ? spec.dtype
                                 : fmt::format("{} ({:.2f} bits per weight)", spec.dtype, spec.bits_per_weight);
    log_info("{}: {} in {}, {:.2f} GiB, context {}, on {}, weights {}, loaded in {:.2f} s", found.id, spec.architecture,
             type, static_cast<double>(spec.weight_bytes) / kGiB, model->max_model_len, spec.device, spec.weight_origin,
             to_seconds(context_.clock.now() - start));
    return model;
  }

  Result<std::unique_ptr<SleepingModel>> sleep(LoadedModel& model) override {
    return put_to_sleep(model, context_.ledger, context_.clock);
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
  // The model and its draft, as far as they are hub ids and no paths.
  std::vector<ModelRecord> on_hub(const ModelRecord& record) const {
    std::vector<ModelRecord> records = {record};
    if (const Result<EngineConfig> own = model_config(context_.config, record); own.ok()) {
      if (std::optional<ModelRecord> draft = draft_record(*own, record)) records.push_back(std::move(*draft));
    }
    std::erase_if(records, [](const ModelRecord& r) { return !is_on_hub(r); });
    return records;
  }
  struct Runners {
    std::unique_ptr<ModelRunner> model;
    std::unique_ptr<ModelRunner> draft;  // null: there is none
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
    ASSIGN_OR_RETURN(EngineConfig config, model_config(context_.config, record));
    ASSIGN_OR_RETURN(ModelSource source, find_model_source(context_.config, record));
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

  // The draft of what was found: with its settings, booked under its name, for steps of a draft's size.
  Result<std::optional<Found>> find_draft(const Found& found, const ModelRecord& record) const {
    const std::optional<ModelRecord> draft = draft_record(found.config, record);
    if (!draft) return std::optional<Found>();
    Result<Found> of_draft = find(*draft);
    if (!of_draft.ok()) {
      Error error = error_of_draft(std::move(of_draft).error(), draft->source);
      // What no download brings is not asked for again.
      const bool on_hub = model_hub_id(*draft).ok();
      if (error.code == ErrorCode::not_found && !on_hub) error.code = ErrorCode::invalid_argument;
      return error;
    }
    ASSIGN_OR_RETURN(const bool on_gpu, is_on_gpu(found));
    ASSIGN_OR_RETURN(const bool draft_on_gpu, is_on_gpu(*of_draft));
    if (on_gpu != draft_on_gpu) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} cannot guess for {}: one computes on the GPU and the other does not",
                                    draft->source, found.source_name),
                        kDraftModel);
    }
    EngineConfig& config = of_draft->config;
    config.tensor_parallel_size = 1;  // too small to be worth a share
    config.max_num_seqs = std::min(config.max_num_seqs, DraftModel::kMaxSequences);
    config.max_num_batched_tokens = DraftModel::kMaxTokens;
    if (config.enable_paged_attention) config.max_model_len.reset();  // its own may be shorter
    return std::optional<Found>(std::move(of_draft).value());
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
    RETURN_IF_ERROR(check_ranks(found.source_name, found.config.tensor_parallel_size, on_gpu));
    const int32_t tokens = core_config(found).max_num_batched_tokens;
    cuda::CudaLoadOptions options = cuda_options(found);
    options.others.resize(static_cast<size_t>(found.config.tensor_parallel_size) - 1);  // how many is all that counts
    ASSIGN_OR_RETURN(MemoryEstimate memory, on_gpu ? cuda::estimate_cuda_memory(options, tokens)
                                                   : estimate_transformers_memory(transformers_options(found), tokens));
    if (!on_gpu && context_.gpu != nullptr) memory.bytes = 0;
    return ModelFootprint{memory.bytes, memory.first_context, memory.kv_bytes_per_token, memory.max_model_len,
                          memory.dtype};
  }

  Result<std::unique_ptr<ModelRunner>> load_transformers(const Found& found, const LoadReport& report) {
    ASSIGN_OR_RETURN(const bool on_gpu, computes_on_gpu(found.config.device, context_.gpu.get()));
    RETURN_IF_ERROR(check_ranks(found.source_name, found.config.tensor_parallel_size, on_gpu));
    cuda::CudaLoadOptions options = cuda_options(found);
    if (found.config.tensor_parallel_size > 1) {
      ASSIGN_OR_RETURN(options.others, context_.gpu_ranks->others(found.config.tensor_parallel_size));
      options.nccl = find_nccl(found.id);
    }
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

  onnx::OnnxLoadOptions onnx_options(const Found& found) const {
    onnx::OnnxLoadOptions options = onnx_settings(found.config);
    options.directory = &found.source.directory;
    options.file = found.source.file;
    options.model_name = found.id;
    options.ledger = &context_.host;
    options.pool = &context_.pool;
    return options;
  }

  Result<ModelKind> kind_of(const Found& found) const {
    if (found.row->format == ModelFormat::ONNX) return onnx::onnx_kind(onnx_options(found));
    RETURN_IF_ERROR(check_is_no_onnx_task(found.source_name, model_format_name(found.row->format), found.config));
    return ModelKind::generator;
  }

  // A model that does not generate: no engine, and a tokenizer where texts go into it.
  Result<std::shared_ptr<LoadedModel>> load_graph(const Found& found, ModelKind kind, const ModelRecord& record,
                                                  const LoadReport& report) {
    const TimePoint start = context_.clock.now();
    RETURN_IF_ERROR(check_onnx_settings(found.source_name, found.config));
    auto model = std::make_shared<LoadedModel>();
    if (kind == ModelKind::embedding) {
      RETURN_IF_ERROR(report({"reading the tokenizer"}));
      model->token_memory = token_memory_of(found);
      ASSIGN_OR_RETURN(model->tokenizer, load_model_tokenizer(found.source.directory, found.config,
                                                              template_text_of(record), model->token_memory));
    }
    onnx::OnnxLoadOptions options = onnx_options(found);
    options.progress = [&](const char* stage) { return report({stage}); };
    ASSIGN_OR_RETURN(onnx::OnnxGraphModel graph, onnx::load_onnx_graph(options));
    const GraphSpec& spec = graph.runner->spec();
    if (model->tokenizer != nullptr) {
      RETURN_IF_ERROR(check_vocabulary(found, *model->tokenizer, spec.vocab_size));
    }
    model->id = found.id;
    model->root = found.source_name;
    model->format = found.row->format;
    model->spec.architecture = graph.architecture;
    model->spec.vocab_size = spec.vocab_size;
    model->spec.max_position = spec.max_tokens;
    model->spec.weight_bytes = graph.weight_bytes;
    model->spec.weight_origin = graph.weight_origin;
    model->spec.dtype = graph.dtype;
    model->spec.stored_dtype = graph.dtype;
    model->spec.device = graph.device;
    model->max_model_len = spec.max_tokens;
    const EngineCoreConfig core = core_config(found);
    GraphCoreConfig config{.model = found.id, .max_queued_requests = core.max_queued_requests};
    config.max_batch_texts = std::min(config.max_batch_texts, core.max_num_seqs);
    config.max_batch_tokens = found.config.max_num_batched_tokens.value_or(config.max_batch_tokens);
    model->graph = std::make_unique<GraphCore>(std::move(config), std::move(graph.runner), context_.clock);
    log_info("{}: {} ({}) in {}, on {}, loaded in {:.2f} s", found.id, model->spec.architecture, model_kind_name(kind),
             model->spec.dtype, model->spec.device, to_seconds(context_.clock.now() - start));
    return model;
  }

  static Status check_vocabulary(const Found& found, const Tokenizer& tokenizer, int32_t vocab_size) {
    if (vocab_size == 0 || tokenizer.vocab_size() <= vocab_size) return ok_status();
    return make_error(
        ErrorCode::malformed,
        fmt::format(
            "{}: the tokenizer has {} tokens and the model's vocab_size is {}; the files do not belong together",
            found.source_name, tokenizer.vocab_size(), vocab_size));
  }

  Result<ModelFootprint> estimate_onnx(const Found& found) {
    const EngineCoreConfig core = core_config(found);
    const onnx::OnnxLoadOptions options = onnx_options(found);
    ASSIGN_OR_RETURN(const ModelKind kind, onnx::onnx_kind(options));
    ASSIGN_OR_RETURN(const onnx::OnnxEstimate memory,
                     kind == ModelKind::generator
                         ? onnx::estimate_onnx_memory(options, core.max_num_seqs, core.max_num_batched_tokens)
                         : onnx::estimate_onnx_graph(options));
    // Beside a GPU the manager looks at that one's memory, of which a graph takes none.
    return ModelFootprint{context_.gpu != nullptr ? 0 : memory.bytes, memory.max_model_len, memory.kv_bytes_per_token,
                          memory.max_model_len, memory.dtype};
  }

  Result<std::unique_ptr<ModelRunner>> load_onnx(const Found& found, const LoadReport& report) {
    RETURN_IF_ERROR(check_onnx_settings(found.source_name, found.config));
    onnx::OnnxLoadOptions options = onnx_options(found);
    options.progress = [&](const char* stage) { return report({stage}); };
    return onnx::load_onnx_model(options);
  }

  Result<GenerationConfig> generation_onnx(const Found& found, int64_t) {
    ASSIGN_OR_RETURN(onnx::OnnxDescription about, onnx::describe_onnx(found.source.directory, found.source.file));
    return std::move(about.generation);
  }

  // All but its tokenizer.
  Result<std::shared_ptr<LoadedModel>> assemble(const Found& found, Runners runners, const LoadReport& report) {
    auto model = std::make_shared<LoadedModel>();
    model->id = found.id;
    model->root = found.source_name;
    model->format = found.row->format;
    model->spec = runners.model->spec();
    ASSIGN_OR_RETURN(const GenerationConfig generation, (this->*found.row->generation)(found, model->spec.vocab_size));
    model->defaults = generation_defaults(generation);
    RETURN_IF_ERROR(report({"starting the engine"}));
    ASSIGN_OR_RETURN(const bool on_gpu, is_on_gpu(found));
    MemoryLedger& ledger = on_gpu ? context_.ledger : context_.host;
    EngineCoreConfig core = core_config(found);
    if (on_gpu && found.config.tensor_parallel_size > 1) {
      core.max_kv_bytes =
          context_.gpu_ranks->cache_limit(found.config.tensor_parallel_size, found.id, ledger, core.max_kv_bytes);
    }
    ASSIGN_OR_RETURN(model->core, EngineCore::create(core, std::move(runners.model), ledger, context_.clock,
                                                     std::move(runners.draft)));
    model->max_model_len = model->core->max_model_len();
    model->sleep_bytes = model->core->sleep_bytes();
    model->answers = make_answer_cache(found);
    return model;
  }

  // Null: the model remembers no texts.
  std::shared_ptr<CacheMemory> token_memory_of(const Found& found) const {
    if (found.config.token_cache_mb <= 0.0) return nullptr;
    return std::make_shared<CacheMemory>(context_.host, found.id);
  }

  // Null: it keeps no answers.
  std::shared_ptr<AnswerCache> make_answer_cache(const Found& found) const {
    const EngineConfig& config = found.config;
    if (config.answer_cache_mb <= 0.0) return nullptr;
    AnswerCache::Options options;
    options.max_bytes = static_cast<size_t>(config.answer_cache_mb * kMiB);
    if (config.answer_cache_ttl > 0.0) {
      options.longest = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.answer_cache_ttl));
    }
    options.may_take = [memory = std::make_shared<CacheMemory>(context_.host, found.id)](size_t bytes) {
      return memory->take(bytes);
    };
    return std::make_shared<AnswerCache>(std::move(options));
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
    if (context_.kv_disk != nullptr) {
      core.open_tier = [disk = context_.kv_disk](const KvTierSpec& spec, std::function<void()> wake) {
        return disk->open(spec, std::move(wake));
      };
    }
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

std::unique_ptr<ModelLoader> make_model_loader(const LoadingContext& context) {
  return std::make_unique<DirectoryLoader>(context);
}

}  // namespace inferneo
