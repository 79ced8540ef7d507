#include "server/server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/context.hpp>
#include <mutex>
#include <optional>

#include "base/log.h"
#include "base/system.h"
#include "server/io_thread.h"
#include "server/kserve/kserve_routes.h"
#include "server/openai/openai_routes.h"
#include "server/operations.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

std::vector<Route> join_routes(const std::shared_ptr<InferenceService>& service, std::span<const MetricInfo> catalogue,
                               std::vector<Route> extra) {
  std::vector<Route> routes = operations_routes(service, catalogue);
  for (Route& route : openai_routes(service)) routes.push_back(std::move(route));
  for (Route& route : kserve_routes(service)) routes.push_back(std::move(route));
  for (Route& route : extra) routes.push_back(std::move(route));
  return routes;
}

Status check_config(const ServerConfig& config) {
  if (!is_loopback_host(config.host) && config.api_keys.empty() && config.named_keys.empty() && !config.insecure) {
    return make_error(ErrorCode::refused,
                      fmt::format("host {} can be reached from elsewhere and no key is set: give --api-key, bind to "
                                  "127.0.0.1, or say --insecure",
                                  config.host),
                      "host");
  }
  for (const auto* keys : {&config.api_keys, &config.admin_keys}) {
    for (const std::string& key : *keys) {
      if (key.empty()) return make_error(ErrorCode::invalid_argument, "a key must not be empty", "api_key");
    }
  }
  for (const NamedKey& key : config.named_keys) {
    if (key.key.empty() && !parse_key_digest(key.sha256)) {
      return make_error(ErrorCode::invalid_argument, "a named key needs a key, or its SHA-256 in 64 hexadecimal digits",
                        "key_limits");
    }
  }
  if (config.tls_cert_file.empty() != config.tls_key_file.empty()) {
    return make_error(ErrorCode::invalid_argument, "TLS needs both a certificate and a key file", "tls_cert_file");
  }
  return ok_status();
}

Result<tcp::endpoint> to_endpoint(const ServerConfig& config) {
  std::string host = config.host == "localhost" ? "127.0.0.1" : config.host;
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  error_code ec;
  const auto address = asio::ip::make_address(host, ec);
  if (ec) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("host '{}' is not an IP address (nor localhost)", config.host), "host");
  }
  return tcp::endpoint(address, config.port);
}

// SO_REUSEPORT would let a second server of the same user share the port in silence; a bind without it does not.
Status check_port_is_free(const tcp::endpoint& endpoint) {
  if (endpoint.port() == 0) return ok_status();
  asio::io_context io;
  tcp::acceptor probe(io);
  error_code ec;
  probe.open(endpoint.protocol(), ec);
  if (!ec) probe.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) probe.bind(endpoint, ec);
  if (!ec) probe.listen(1, ec);
  if (!ec) return ok_status();
  return make_error(
      ErrorCode::io_error,
      fmt::format("cannot listen on {} port {}: {}", endpoint.address().to_string(), endpoint.port(), ec.message()),
      "port");
}

Status load_tls(asio::ssl::context& tls, const ServerConfig& config) {
  error_code ec;
  tls.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                      asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1 |
                      asio::ssl::context::no_compression,
                  ec);
  if (!ec) tls.use_certificate_chain_file(config.tls_cert_file, ec);
  if (ec)
    return make_error(ErrorCode::io_error, "cannot use the TLS certificate file: " + ec.message(), "tls_cert_file");
  tls.use_private_key_file(config.tls_key_file, asio::ssl::context::pem, ec);
  if (ec) return make_error(ErrorCode::io_error, "cannot use the TLS key file: " + ec.message(), "tls_key_file");
  return ok_status();
}

// Each connection is a descriptor; the soft limit is often 1024.
void raise_descriptor_limit(int& max_connections) {
  constexpr rlim_t kReserve = 256;  // files, models, listening sockets
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(max_connections) + kReserve;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < wanted) {
    max_connections = std::max(16, static_cast<int>(limit.rlim_cur) - static_cast<int>(kReserve));
    log_warning("the limit of open files allows {} connections; raise it (ulimit -n) for more", max_connections);
  }
}

}  // namespace

struct Server::Impl {
  Impl(ServerConfig server_config, std::shared_ptr<InferenceService> inference_service,
       std::span<const MetricInfo> catalogue, std::vector<Route> extra_routes, const Tracer* tracer)
      : config(std::move(server_config)),
        service(std::move(inference_service)),
        routes(join_routes(service, catalogue, std::move(extra_routes))),
        gate(config, routes) {
    context.limits = &config.limits;
    context.gate = &gate;
    context.tracer = tracer;
    context.admission = [this]() -> std::optional<HttpError> {
      const Status open = service->admission();
      if (open.ok()) return std::nullopt;
      return with_retry_after(*service, "", open.error());
    };
    context.bodies = std::make_shared<ByteBudget>(std::max(config.limits.all_bodies_bytes, config.limits.body_bytes));
    context.post_text_work = [this](std::function<void()> work) { return service->post_text_work(std::move(work)); };
  }

  ServerConfig config;
  std::shared_ptr<InferenceService> service;
  RouteTable routes;
  Gate gate;
  ConnectionContext context;
  std::optional<asio::ssl::context> tls;
  std::atomic<int> num_connections{0};
  std::mutex mutex;  // of what follows
  std::vector<std::unique_ptr<IoThread>> threads;
  int stops = 0;
};

Server::Server(ServerConfig config, std::shared_ptr<InferenceService> service, std::span<const MetricInfo> catalogue,
               std::vector<Route> extra_routes, const Tracer* tracer)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(service), catalogue, std::move(extra_routes), tracer)) {
}

Server::~Server() {
  for (const auto& thread : impl_->threads) thread->stop_now();
  join();
  impl_->context.posted_handlers->wait_for_none();
}

Result<uint16_t> Server::start() {
  RETURN_IF_ERROR(check_config(impl_->config));
  ASSIGN_OR_RETURN(tcp::endpoint endpoint, to_endpoint(impl_->config));
  RETURN_IF_ERROR(check_port_is_free(endpoint));
  if (!impl_->config.tls_cert_file.empty()) {
    impl_->tls.emplace(asio::ssl::context::tls_server);
    RETURN_IF_ERROR(load_tls(*impl_->tls, impl_->config));
  }
  raise_descriptor_limit(impl_->config.limits.max_connections);

  const int wanted = impl_->config.io_threads;
  const int num_threads = wanted > 0 ? wanted : std::min(available_cpus(), 4);
  const std::lock_guard lock(impl_->mutex);
  std::vector<std::unique_ptr<IoThread>> threads;
  for (int i = 0; i < num_threads; ++i) {
    threads.push_back(
        std::make_unique<IoThread>(impl_->context, impl_->tls ? &*impl_->tls : nullptr, impl_->num_connections));
    ASSIGN_OR_RETURN(const uint16_t port, threads.back()->listen(endpoint));
    endpoint.port(port);  // the first thread may have been given a free one
  }
  for (const auto& thread : threads) thread->start();
  impl_->threads = std::move(threads);
  return endpoint.port();
}

void Server::request_stop() {
  const std::lock_guard lock(impl_->mutex);
  const bool again = impl_->stops++ > 0;
  for (const auto& thread : impl_->threads) {
    if (again) {
      thread->stop_now();
    } else {
      thread->drain(impl_->config.limits.drain_timeout);
    }
  }
}

void Server::join() {
  for (const auto& thread : impl_->threads) thread->join();
}

int Server::num_connections() const { return impl_->num_connections.load(); }

const RouteTable& Server::routes() const { return impl_->routes; }

}  // namespace inferneo
