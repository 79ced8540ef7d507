#include "cli/open_engine.h"

namespace inferneo {

Status PreparedEngine::load_models() {
  Status loaded = application->load_models();
  progress->clear();
  return loaded;
}

Result<PreparedEngine> prepare_engine(const EngineConfig& config, CommandContext& context) {
  if (config.model.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "no model is named; give a directory or a hub id after the command, INFERNEO_MODEL, or 'model:' "
                      "in the configuration file",
                      "model");
  }
  static const SteadyClock clock;
  PreparedEngine engine;
  // Loading threads may report until load_models() returns, and lazily loaded models later: the line is shared.
  engine.progress = std::make_shared<ProgressLine>(context.terminal, clock, config.quiet);
  ASSIGN_OR_RETURN(engine.application,
                   Application::create(config, [line = engine.progress](const ModelProgress& progress) {
                     line->update({progress.model, progress.stage, progress.bytes_done, progress.bytes_total});
                   }));
  return engine;
}

Result<std::unique_ptr<Application>> open_engine(const EngineConfig& config, CommandContext& context) {
  ASSIGN_OR_RETURN(PreparedEngine engine, prepare_engine(config, context));
  RETURN_IF_ERROR(engine.load_models());
  return std::move(engine.application);
}

}  // namespace inferneo
