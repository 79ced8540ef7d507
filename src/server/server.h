// The HTTP server: listens, accepts, and gives each connection to one of its io threads.
//
// One io_context per thread, each with its own listening socket on the same port (SO_REUSEPORT): no hand-over between
// threads, no shared lock. start(), request_stop() and join() may be called from any thread, though not from a signal
// handler. The service must outlive the server's join(), and hold none of its sinks past its own end.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/route_table.h"
#include "server/server_config.h"
#include "serving/inference_service.h"
#include "serving/metrics_catalogue.h"
#include "tracing/tracer.h"

namespace inferneo {

class Server {
 public:
  // `extra_routes` (admin, pages) stand beside the API's own. `tracer`: outlives the server; null: nothing is traced.
  Server(ServerConfig config, std::shared_ptr<InferenceService> service, std::span<const MetricInfo> catalogue,
         std::vector<Route> extra_routes = {}, const Tracer* tracer = nullptr);
  ~Server();  // stops at once and joins
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Checks the configuration, binds, starts the threads. The bound port. refused: a public bind without a key;
  // io_error: the address is in use or not ours, or a TLS file cannot be read; invalid_argument: a bad host.
  Result<uint16_t> start();

  // First call: accept no more, let requests in hand finish within the drain limit, then end them with an error event.
  // Second call: end everything at once.
  void request_stop();
  void join();  // until the last thread has ended

  int num_connections() const;
  const RouteTable& routes() const;  // all that it answers

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
