#include "server/io_thread.h"

#include <pthread.h>
#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"

namespace inferneo {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

// Whoever is still connected this long after the streams were ended does not read; the socket goes.
constexpr Duration kLastWords = std::chrono::seconds(2);
// What the kernel holds of an answer beside our own queue. Its own choice grows to megabytes, and a socket counts as
// writable again only when a third of that has left: a slow reader would look like one that does not read.
constexpr int kSendBufferBytes = 128 * 1024;
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

Error socket_error(std::string_view what, const error_code& ec) {
  return make_error(ErrorCode::io_error, std::string(what) + ": " + ec.message());
}

}  // namespace

IoThread::IoThread(const ConnectionContext& context, asio::ssl::context* tls, std::atomic<int>& num_connections)
    : context_(context),
      tls_(tls),
      num_connections_(num_connections),
      work_(asio::make_work_guard(io_)),
      acceptor_(io_),
      drain_timer_(io_) {}

IoThread::~IoThread() {
  stop_now();
  join();
}

Result<uint16_t> IoThread::listen(const tcp::endpoint& endpoint) {
  error_code ec;
  acceptor_.open(endpoint.protocol(), ec);
  if (!ec) acceptor_.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) acceptor_.set_option(ReusePort(true), ec);
  if (!ec) acceptor_.bind(endpoint, ec);
  if (!ec) acceptor_.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return socket_error("cannot listen on port " + std::to_string(endpoint.port()), ec);
  return acceptor_.local_endpoint(ec).port();
}

void IoThread::start() {
  asio::co_spawn(io_, accept_loop(this), asio::detached);
  thread_ = std::thread([this] {
    sigset_t all;  // signals belong to the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    pthread_setname_np(pthread_self(), "http-io");
    io_.run();
  });
}

void IoThread::join() {
  if (thread_.joinable()) thread_.join();
}

asio::awaitable<void> IoThread::accept_loop(IoThread* self) {
  while (self->acceptor_.is_open()) {
    error_code ec;
    tcp::socket socket(self->io_);
    auto token = asio::redirect_error(asio::use_awaitable, ec);
    co_await self->acceptor_.async_accept(socket, token);
    if (!ec) {
      self->admit(std::move(socket));
    } else if (self->acceptor_.is_open() && ec != asio::error::connection_aborted) {
      // Out of descriptors, most likely: connections that end will give some back.
      log_warning("cannot accept a connection: {}", ec.message());
      asio::steady_timer pause(self->io_, kAcceptPause);
      auto pause_token = asio::redirect_error(asio::use_awaitable, ec);
      co_await pause.async_wait(pause_token);
    }
  }
}

void IoThread::admit(tcp::socket socket) {
  error_code ec;
  socket.set_option(tcp::no_delay(true), ec);
  socket.set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ec);
  if (num_connections_.load() >= context_.limits->max_connections) {
    static constexpr std::string_view kBusy =
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.non_blocking(true, ec);
    if (tls_ == nullptr) socket.send(asio::buffer(kBusy), 0, ec);
    return;
  }
  ++num_connections_;
  auto transport =
      tls_ != nullptr ? make_tls_transport(std::move(socket), *tls_) : make_tcp_transport(std::move(socket));
  auto connection = std::make_shared<Connection>(std::move(transport), context_);
  connections_.insert(connection);
  asio::co_spawn(io_, serve(this, std::move(connection)), asio::detached);
}

asio::awaitable<void> IoThread::serve(IoThread* self, std::shared_ptr<Connection> connection) {
  try {
    co_await Connection::run(connection);
  } catch (const std::exception& error) {
    log_error("a connection failed: {}", error.what());
    connection->close();
  }
  self->connections_.erase(connection);
  --self->num_connections_;
  // The last one out lets run() return: nothing but the drain timer would keep the thread.
  if (self->stopping_ && self->connections_.empty()) self->drain_timer_.cancel();
}

void IoThread::drain(Duration limit) {
  asio::post(io_, [this, limit] { on_drain(limit); });
}

void IoThread::on_drain(Duration limit) {
  if (stopping_) return;
  stopping_ = true;
  error_code ec;
  acceptor_.close(ec);
  work_.reset();
  for (const auto& connection : std::vector(connections_.begin(), connections_.end())) connection->drain();
  if (connections_.empty()) return;
  drain_timer_.expires_after(limit);
  drain_timer_.async_wait([this](error_code wait_error) {
    if (!wait_error) end_streams();
  });
}

void IoThread::end_streams() {
  for (const auto& connection : std::vector(connections_.begin(), connections_.end())) connection->end_streams();
  drain_timer_.expires_after(kLastWords);
  drain_timer_.async_wait([this](error_code wait_error) {
    if (!wait_error) close_all();
  });
}

void IoThread::close_all() {
  for (const auto& connection : std::vector(connections_.begin(), connections_.end())) connection->close();
}

void IoThread::stop_now() {
  if (!thread_.joinable()) return;
  asio::post(io_, [this] {
    on_drain(Duration::zero());
    drain_timer_.cancel();
    close_all();
  });
}

}  // namespace inferneo
