// How a configuration reaches the hub.
#pragma once

#include "formats/hub_client.h"
#include "inferneo/config.h"

namespace inferneo {

inline HubAccess hub_access(const EngineConfig& config) {
  return {.endpoint = config.hub_endpoint,
          .token = config.hub_token,
          .token_file = config.hub_token_file,
          .cache = config.hub_cache,
          .offline = config.hub_offline};
}

}  // namespace inferneo
