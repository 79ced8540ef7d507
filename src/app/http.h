// The HTTP face of an application.
#pragma once

#include <memory>

#include "app/application.h"
#include "inferneo/config.h"
#include "server/server.h"

namespace inferneo {

// Not started yet. The application must outlive the server.
std::unique_ptr<Server> make_server(Application& application, const EngineConfig& config);

}  // namespace inferneo
