#include "app/http.h"

#include <algorithm>
#include <utility>

#include "app/hub_access.h"
#include "formats/hub_client.h"
#include "server/admin/admin_routes.h"
#include "server/admin/shadow_routes.h"
#include "server/admin/traffic_routes.h"
#include "server/pages/pages.h"
#include "serving/metrics_catalogue.h"

namespace inferneo {
namespace {

ServerConfig server_config_of(const EngineConfig& config) {
  ServerConfig server;
  server.host = config.host;
  server.port = static_cast<uint16_t>(config.port);
  server.io_threads = config.io_threads;
  server.api_keys = config.api_key;
  for (const KeyLimits& entry : config.key_limits) server.named_keys.push_back({entry.key, entry.key_sha256});
  server.admin_keys = config.admin_key;
  server.tls_cert_file = config.tls_cert;
  server.tls_key_file = config.tls_key;
  server.insecure = config.insecure;
  server.allowed_origins = config.allowed_origins;
  server.metrics_need_key = !config.metrics_public;
  server.limits.body_bytes = static_cast<size_t>(config.max_body_mb * 1024.0 * 1024.0);
  server.limits.drain_timeout =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.drain_timeout));
  return server;
}

PullFunction pull_function(const EngineConfig& config) {
  return [access = hub_access(config)](const HubPull& pull) { return pull_snapshot(access, pull); };
}

}  // namespace

std::unique_ptr<Server> make_server(Application& application, const EngineConfig& config) {
  // The application owns the service; the server only needs a handle on it.
  std::shared_ptr<InferenceService> service(&application.service(), [](InferenceService*) {});
  std::vector<Route> routes =
      admin_routes({application.manager(), application.ledger(), application.clock(), pull_function(config)});
  const TrafficDesk desk{application.traffic(), application.clock(), &application.routed_service(),
                         &application.manager()};
  for (Route& route : traffic_routes(desk)) routes.push_back(std::move(route));
  for (Route& route : shadow_routes(application.shadows())) routes.push_back(std::move(route));
  for (Route& route : page_routes()) routes.push_back(std::move(route));
  return std::make_unique<Server>(server_config_of(config), std::move(service), metrics_catalogue(), std::move(routes),
                                  application.tracer());
}

}  // namespace inferneo
