#include "cli/open_engine.h"

#include "cli/progress.h"

namespace inferneo {

Result<std::unique_ptr<Application>> open_engine(const EngineConfig& config, CommandContext& context) {
  if (config.model.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "no model is named; give a directory or a hub id after the command, INFERNEO_MODEL, or 'model:' "
                      "in the configuration file",
                      "model");
  }
  static const SteadyClock clock;
  // Loading threads may report until load_models() returns, and lazily loaded models later: the line is shared.
  const auto line = std::make_shared<ProgressLine>(context.terminal, clock, config.quiet);
  ASSIGN_OR_RETURN(auto application, Application::create(config, [line](const ModelProgress& progress) {
                     line->update({progress.model, progress.stage, progress.bytes_done, progress.bytes_total});
                   }));
  const Status loaded = application->load_models();
  line->clear();
  if (!loaded.ok()) return loaded.error();
  return application;
}

}  // namespace inferneo
