#include "inferneo/onnx_converter.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "app/hub_access.h"
#include "app/onnx_verification.h"
#include "base/config/environment.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "formats/model_source.h"
#include "models/onnx_convert/converter.h"

namespace inferneo {

struct ONNXConverter::Impl {
  explicit Impl(EngineConfig given)
      : config(std::move(given)), pool(config.num_threads > 0 ? config.num_threads : available_cpus()) {
    if (config.hub_cache.empty()) config.hub_cache = Environment::of_process().hub_cache();
  }

  Result<ModelSource> find(const std::string& model, const ConvertOptions& options);
  Status download(const std::string& model, const ConvertOptions& options);

  EngineConfig config;
  ThreadPool pool;
};

// What is not there and could be a hub id is downloaded.
Result<ModelSource> ONNXConverter::Impl::find(const std::string& model, const ConvertOptions& options) {
  const ModelSourceOptions where{.hub_cache = config.hub_cache, .named_by_operator = true};
  Result<ModelSource> source = resolve_model_source(model, where);
  if (source.ok() || source.error().code != ErrorCode::not_found || config.hub_offline) return source;
  std::error_code ignored;
  if (std::filesystem::exists(model, ignored) || !parse_hub_id(model).ok()) return source;
  RETURN_IF_ERROR(download(model, options));
  return resolve_model_source(model, where);
}

Status ONNXConverter::Impl::download(const std::string& model, const ConvertOptions& options) {
  ASSIGN_OR_RETURN(const HubId id, parse_hub_id(model));
  std::stop_source stop;
  Status wanted;
  HubPull pull{.id = id, .stop = stop.get_token()};
  pull.on_progress = [&](const HubProgress& progress) {
    if (!options.on_progress || !wanted.ok()) return;
    wanted = options.on_progress({"downloading", progress.bytes_done, progress.bytes_total});
    if (!wanted.ok()) stop.request_stop();
  };
  const Result<HubSnapshot> snapshot = pull_snapshot(hub_access(config), pull);
  if (!wanted.ok()) return wanted;
  return snapshot.ok() ? ok_status() : Status(snapshot.error());
}

ONNXConverter::ONNXConverter(EngineConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}
ONNXConverter::~ONNXConverter() = default;

Result<ConvertedModel> ONNXConverter::convert_model(const std::string& model, const std::string& output,
                                                    const ConvertOptions& options) {
  RETURN_IF_ERROR(check_convert_options(options));
  ASSIGN_OR_RETURN(const ModelSource source, impl_->find(model, options));
  ConvertVerification verification{.reason = "it was not wanted"};
  ConvertRequest request{.source = source.directory, .output = output, .options = options, .pool = impl_->pool};
  request.home = impl_->config.home;
  if (options.verify) {
    request.accept = [&](const std::string& path) -> Status {
      if (options.on_progress) RETURN_IF_ERROR(options.on_progress({"verifying", 0, 0}));
      ASSIGN_OR_RETURN(verification,
                       verify_conversion(source.directory, path, options, impl_->pool, impl_->config.onnxruntime));
      return ok_status();
    };
  }
  ASSIGN_OR_RETURN(ConvertedModel converted, convert_directory(request));
  converted.verification = std::move(verification);
  return converted;
}

}  // namespace inferneo
