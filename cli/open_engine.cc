#include "cli/open_engine.h"

#include <utility>

#include "app/registry_path.h"
#include "base/log.h"

namespace inferneo {

Status PreparedEngine::load_models() {
  Status loaded = application->load_models();
  progress->clear();
  return loaded;
}

namespace {

Result<PreparedEngine> prepare(const EngineConfig& config, CommandContext& context, ApplicationOptions options) {
  static const SteadyClock clock;
  PreparedEngine engine;
  // Loading threads may report until load_models() returns, and lazily loaded models later: the line is shared.
  engine.progress = std::make_shared<ProgressLine>(context.terminal, clock, config.quiet);
  options.progress = [line = engine.progress](const ModelProgress& progress) {
    line->update({progress.model, progress.stage, progress.bytes_done, progress.bytes_total});
  };
  ASSIGN_OR_RETURN(engine.application, Application::create(config, std::move(options)));
  return engine;
}

}  // namespace

Result<PreparedEngine> prepare_server(const EngineConfig& config, CommandContext& context) {
  const std::string path = registry_path(config);
  Result<PreparedEngine> engine = prepare(config, context, {.registry = path, .may_be_empty = true, .serves = true});
  const bool chosen = !config.registry.empty();
  if (engine.ok() || chosen || path.empty()) return engine;
  const ErrorCode code = engine.error().code;
  if (code != ErrorCode::io_error && code != ErrorCode::disk_full) return engine;
  log_warning("{}; what is registered now is forgotten at the end", engine.error().message);
  return prepare(config, context, {.may_be_empty = true, .serves = true});
}

Result<PreparedEngine> prepare_engine(const EngineConfig& config, CommandContext& context) {
  if (config.model.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "no model is named; give a directory or a hub id after the command, INFERNEO_MODEL, or 'model:' "
                      "in the configuration file",
                      "model");
  }
  EngineConfig alone = config;  // what else the file names is a server's
  alone.models.clear();
  alone.aliases.clear();
  return prepare(alone, context, {});
}

Result<std::unique_ptr<Application>> open_engine(const EngineConfig& config, CommandContext& context) {
  ASSIGN_OR_RETURN(PreparedEngine engine, prepare_engine(config, context));
  RETURN_IF_ERROR(engine.load_models());
  return std::move(engine.application);
}

}  // namespace inferneo
