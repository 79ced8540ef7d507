// An engine with its models loaded, behind a progress line.
#pragma once

#include <memory>

#include "app/application.h"
#include "cli/command.h"
#include "cli/progress.h"

namespace inferneo {

// An engine whose configuration has been checked and whose models are still to be loaded.
struct PreparedEngine {
  std::unique_ptr<Application> application;
  std::shared_ptr<ProgressLine> progress;

  Status load_models();  // errors: those of Application::load_models
};

// Errors: those of Application::create; invalid_argument when no model is named.
Result<PreparedEngine> prepare_engine(const EngineConfig& config, CommandContext& context);
// For a server, which keeps a registry and may begin without a model.
Result<PreparedEngine> prepare_server(const EngineConfig& config, CommandContext& context);

// Both steps.
Result<std::unique_ptr<Application>> open_engine(const EngineConfig& config, CommandContext& context);

}  // namespace inferneo
