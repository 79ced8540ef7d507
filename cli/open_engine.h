// An engine with its models loaded, behind a progress line.
#pragma once

#include <memory>

#include "app/application.h"
#include "cli/command.h"

namespace inferneo {

// Errors: those of Application::create and load_models; invalid_argument when no model is named.
Result<std::unique_ptr<Application>> open_engine(const EngineConfig& config, CommandContext& context);

}  // namespace inferneo
