// A byte stream over TCP or TLS behind one interface, so that the connection's logic is compiled once.
//
// Belongs to one io thread. At most one read and one write are outstanding at a time; the buffers and the object must
// live until their handlers have run, which close() hastens.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>

namespace inferneo {

class Transport {
 public:
  using IoHandler = std::function<void(boost::system::error_code, size_t)>;

  virtual ~Transport() = default;
  virtual void async_handshake(std::function<void(boost::system::error_code)> handler) = 0;
  virtual void async_read(boost::asio::mutable_buffer buffer, IoHandler handler) = 0;  // some bytes
  virtual void async_write(boost::asio::const_buffer buffer, IoHandler handler) = 0;   // all bytes
  // What can be written at once, with no write outstanding: how much of it went. Errors are left to async_write.
  virtual size_t try_write(boost::asio::const_buffer buffer) = 0;
  virtual boost::asio::ip::tcp::socket& socket() = 0;
};

std::unique_ptr<Transport> make_tcp_transport(boost::asio::ip::tcp::socket socket);
std::unique_ptr<Transport> make_tls_transport(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context);

}  // namespace inferneo
