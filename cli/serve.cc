// inferneo serve MODEL...: loads the models, then listens until SIGINT or SIGTERM.
#include <fmt/format.h>
#include <unistd.h>

#include "app/http.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/open_engine.h"

namespace inferneo {
namespace {

std::string start_line(const EngineConfig& config, const InferenceService& service, uint16_t port) {
  std::string names;
  for (const ModelInfo& model : service.models()) names += (names.empty() ? "" : ", ") + model.id;
  const bool v6 = config.host.find(':') != std::string::npos && config.host.front() != '[';
  return fmt::format("serving {} at {}://{}:{}/v1", names, config.tls_cert.empty() ? "http" : "https",
                     v6 ? fmt::format("[{}]", config.host) : config.host, port);
}

Status serve(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const LoadedConfig loaded, load_invocation_config(*find_command("serve"), invocation, context));
  const EngineConfig& config = loaded.config;
  RETURN_IF_ERROR(validate_server_config(config));  // before the long load
  ASSIGN_OR_RETURN(const auto application, open_engine(config, context));
  InferenceService& service = application->service();
  const std::unique_ptr<Server> server = make_server(*application, config);
  ASSIGN_OR_RETURN(const uint16_t port, server->start());
  log_info("{}", start_line(config, service, port));
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
