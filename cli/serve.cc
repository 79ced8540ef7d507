// inferneo serve MODEL...: listens, loads the models, and answers until SIGINT or SIGTERM. Whoever supervises it can
// ask /health and /ready from the first moment; a load that fails ends the program.
#include <fmt/format.h>
#include <unistd.h>

#include "app/http.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/open_engine.h"

namespace inferneo {
namespace {

std::string model_names(const InferenceService& service) {
  std::string names;
  for (const ServedModel& model : service.models()) names += (names.empty() ? "" : ", ") + model.id;
  return names;
}

std::string base_url(const EngineConfig& config, uint16_t port) {
  const bool v6 = config.host.find(':') != std::string::npos && config.host.front() != '[';
  return fmt::format("{}://{}:{}", config.tls_cert.empty() ? "http" : "https",
                     v6 ? fmt::format("[{}]", config.host) : config.host, port);
}

Status serve(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const LoadedConfig loaded, load_invocation_config(*find_command("serve"), invocation, context));
  const EngineConfig& config = loaded.config;
  RETURN_IF_ERROR(validate_server_config(config));
  ASSIGN_OR_RETURN(PreparedEngine engine, prepare_server(config, context));
  const std::unique_ptr<Server> server = make_server(*engine.application, config);
  ASSIGN_OR_RETURN(const uint16_t port, server->start());
  const std::string url = base_url(config, port);
  log_info("listening at {}", url);
  RETURN_IF_ERROR(engine.load_models());
  ManagerCore& manager = engine.application->manager();
  if (const Status told = manager.set_server_address(url); !told.ok()) log_warning("{}", told.error().message);
  const std::string names = model_names(engine.application->service());
  if (names.empty()) {
    log_info("ready at {}/v1; no model is registered yet: inferneo register NAME MODEL", url);
  } else {
    log_info("serving {} at {}/v1", names, url);
  }
  {
    const Signals::Scope until_stopped(context.signals, [&](int signal, int count) {
      if (count > 1) ::_exit(128 + signal);
      log_info("stopping: running requests get up to {} s; a second signal ends them at once", config.drain_timeout);
      server->request_stop();
    });
    server->join();
  }
  log_info("stopped");
  return ok_status();
}

}  // namespace

int run_serve(const Invocation& invocation, CommandContext& context) {
  const Status status = serve(invocation, context);
  return status.ok() ? kExitDone : report_error(context, status.error());
}

}  // namespace inferneo
