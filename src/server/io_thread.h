// One thread of the server: an io_context, a listening socket, and the connections that it has accepted.
//
// All members are touched on its own thread only, but for what post() hands over.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <thread>
#include <unordered_set>

#include "base/result.h"
#include "server/connection.h"

namespace inferneo {

class IoThread {
 public:
  IoThread(const ConnectionContext& context, boost::asio::ssl::context* tls, std::atomic<int>& num_connections);
  ~IoThread();

  // Binds before the thread runs. The port is shared with the other threads of the server.
  Result<uint16_t> listen(const boost::asio::ip::tcp::endpoint& endpoint);
  void start();
  void drain(Duration limit);  // from any thread
  void stop_now();             // from any thread
  void join();

 private:
  static boost::asio::awaitable<void> accept_loop(IoThread* self);
  static boost::asio::awaitable<void> serve(IoThread* self, std::shared_ptr<Connection> connection);
  void admit(boost::asio::ip::tcp::socket socket);
  void on_drain(Duration limit);
  void end_streams();
  void close_all();

  const ConnectionContext& context_;
  boost::asio::ssl::context* tls_;
  std::atomic<int>& num_connections_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer drain_timer_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace inferneo
