// One client connection: reads requests, passes them to handlers, carries their answers; one after the other.
//
// Lives on one io thread, which runs all of its code. A single coroutine holds the logic and waits for one thing only:
// "something happened, or the deadline passed"; reads, writes and exchanges report by notify(). A read is outstanding
// even while an answer is awaited, so that a client that leaves is noticed at once; bytes of a pipelined request that
// arrive meanwhile are kept for later.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/exchange.h"
#include "server/gate.h"
#include "server/head_parser.h"
#include "server/server_config.h"
#include "server/server_span.h"
#include "server/transport.h"

namespace inferneo {

// Handlers that run on the text pool, where no connection waits for them: the routes must outlive them.
class PostedHandlers : public std::enable_shared_from_this<PostedHandlers> {
 public:
  // Held by a handler until it has run.
  std::shared_ptr<void> share() {
    ++count_;
    return {nullptr, [self = shared_from_this()](void*) {
              --self->count_;
              self->count_.notify_all();
            }};
  }
  void wait_for_none() {
    for (int count = count_; count > 0; count = count_) count_.wait(count);
  }

 private:
  std::atomic<int> count_{0};
};

// What all connections share; immutable, outlives them.
struct ConnectionContext {
  const ServerLimits* limits = nullptr;
  const Gate* gate = nullptr;
  std::function<std::optional<HttpError>()> admission;  // an error while the service takes no requests
  std::shared_ptr<ByteBudget> bodies;
  std::shared_ptr<PostedHandlers> posted_handlers = std::make_shared<PostedHandlers>();
  std::function<bool(std::function<void()>)> post_text_work;  // for long bodies; false: the queue is full
  const Tracer* tracer = nullptr;                             // none: nothing is traced
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::unique_ptr<Transport> transport, const ConnectionContext& context);
  ~Connection();

  static boost::asio::awaitable<void> run(std::shared_ptr<Connection> self);

  // Called on the io thread.
  void drain();        // finish the request in hand, then end; an idle connection ends at once
  void end_streams();  // the drain limit has passed: end the answer in hand with an error
  void close();        // at once

 private:
  // Each returns false when the connection is to end.
  boost::asio::awaitable<bool> handshake();
  boost::asio::awaitable<bool> read_request();  // true: route_ is set, or null when an error was answered
  boost::asio::awaitable<bool> read_head();
  boost::asio::awaitable<bool> read_body();
  boost::asio::awaitable<bool> answer();
  boost::asio::awaitable<bool> send(std::string bytes);  // writes all; watches the read side meanwhile
  boost::asio::awaitable<bool> send_error(HttpError error, bool last);
  boost::asio::awaitable<bool> send_early(HttpResponse response, bool last);  // last: the connection ends
  boost::asio::awaitable<bool> carry_answer();
  boost::asio::awaitable<void> linger();                  // lets the client read the answer before the socket goes
  boost::asio::awaitable<bool> wait(TimePoint deadline);  // false: the deadline passed and nothing happened

  bool admit();  // runs the gate on the parsed head; false: early_answer_ is set
  HeadOptions head_options(std::string_view request_id) const;
  void start_exchange();
  void run_handler();
  std::string render(Exchange::Outgoing& out);
  void start_read();
  void start_write(std::string_view bytes);
  void notify();
  TimePoint now() const { return std::chrono::steady_clock::now(); }

  std::unique_ptr<Transport> transport_;
  const ConnectionContext& context_;
  boost::asio::steady_timer wake_;
  bool signalled_ = false;
  bool peer_is_loopback_ = false;

  std::array<char, 8192> read_buffer_;
  std::string received_;  // not yet consumed
  bool reading_ = false;
  bool peer_gone_ = false;
  std::string sending_;
  bool writing_ = false;
  bool write_failed_ = false;

  HttpHead head_;
  HttpRequest pending_;
  const Route* route_ = nullptr;
  std::shared_ptr<Exchange> exchange_;
  ServerSpan span_;            // of the request in hand
  HttpResponse early_answer_;  // when no handler is asked
  HeaderList common_headers_;  // of every answer to the request in hand
  bool head_sent_ = false;
  bool draining_ = false;
  bool closed_ = false;
};

}  // namespace inferneo
