#include "server/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"
#include "server/body_decoder.h"
#include "server/request_id.h"

namespace inferneo {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kMaxReadAhead = 64 * 1024;           // pipelined bytes kept while an answer is under way
constexpr size_t kMaxLingerBytes = 32 * 1024 * 1024;  // of a refused body, read past so that the refusal arrives
constexpr size_t kMaxWrite = 64 * 1024;               // so much must leave within the write timeout
constexpr Duration kLingerTime = std::chrono::seconds(2);

constexpr std::string_view kTooManyBytes = "The requests under way are too large together; try again later.";

void add_fields(const Exchange::Outgoing& out, Exchange& exchange, HttpResponse& head) {
  if (!out.route.empty()) head.headers.emplace_back("x-inferneo-route", out.route);
  for (auto& field : exchange.head_fields()) head.headers.push_back(std::move(field));
}

HttpResponse stream_head(const Exchange::Outgoing& out, Exchange& exchange) {
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  add_fields(out, exchange, head);
  return head;
}

}  // namespace

// GCC 12 destroys temporaries of co_await expressions twice: what is awaited below takes named locals by value, never
// a lambda with captures or a braced aggregate.

Connection::Connection(std::unique_ptr<Transport> transport, const ConnectionContext& context)
    : transport_(std::move(transport)),
      context_(context),
      wake_(transport_->socket().get_executor()),
      span_(context.tracer) {
  error_code ec;
  const auto peer = transport_->socket().remote_endpoint(ec);
  peer_is_loopback_ = !ec && peer.address().is_loopback();
}

Connection::~Connection() {
  if (exchange_) {
    exchange_->abandon();
    exchange_->detach();
  }
}

void Connection::notify() {
  signalled_ = true;
  wake_.cancel();
}

asio::awaitable<bool> Connection::wait(TimePoint deadline) {
  if (!signalled_) {
    wake_.expires_at(deadline);
    error_code ec;
    auto token = asio::redirect_error(asio::use_awaitable, ec);
    co_await wake_.async_wait(token);
  }
  const bool happened = signalled_;
  signalled_ = false;
  co_return happened || now() < deadline;
}

void Connection::start_read() {
  if (reading_ || peer_gone_ || closed_) return;
  reading_ = true;
  transport_->async_read(asio::buffer(read_buffer_), [self = shared_from_this()](error_code ec, size_t bytes) {
    self->reading_ = false;
    if (ec) {
      self->peer_gone_ = true;
    } else {
      self->received_.append(self->read_buffer_.data(), bytes);
    }
    self->notify();
  });
}

asio::awaitable<bool> Connection::send(std::string bytes) {
  if (closed_) co_return false;
  sending_ = std::move(bytes);
  // Nearly always the kernel takes an event at once, which saves two turns of the event loop.
  size_t sent = transport_->try_write(asio::buffer(sending_));
  // Piece by piece: a client that reads slowly makes progress, and only one that does not is given up.
  for (; sent < sending_.size() && !write_failed_ && !closed_; sent += kMaxWrite) {
    start_write(std::string_view(sending_).substr(sent, kMaxWrite));
    const TimePoint deadline = now() + context_.limits->write_timeout;
    while (writing_) {
      const bool in_time = co_await wait(deadline);
      // A peer that closed its side is not reading either, nor is one that leaves a stream's bytes lying; without this
      // a stream to it would go on until the write timeout.
      const bool reads = !peer_gone_ && !(exchange_ && exchange_->overflowed());
      if (writing_ && (!in_time || !reads)) close();
    }
  }
  co_return !write_failed_ && !closed_;
}

void Connection::start_write(std::string_view bytes) {
  writing_ = true;
  transport_->async_write(asio::buffer(bytes), [self = shared_from_this()](error_code ec, size_t) {
    self->writing_ = false;
    self->write_failed_ = static_cast<bool>(ec);
    self->notify();
  });
}

asio::awaitable<bool> Connection::handshake() {
  bool done = false;
  bool failed = false;
  auto self = shared_from_this();
  transport_->async_handshake([self, &done, &failed](error_code ec) {
    done = true;
    failed = static_cast<bool>(ec);
    self->notify();
  });
  const TimePoint deadline = now() + context_.limits->handshake_timeout;
  while (!done) {
    const bool in_time = co_await wait(deadline);
    if (!in_time) close();
  }
  co_return !failed && !closed_;
}

bool Connection::admit() {
  pending_ = HttpRequest{};
  const std::string* id = head_.header("x-request-id");
  pending_.request_id = id != nullptr && is_sane_request_id(*id) ? *id : new_request_id();
  common_headers_ = context_.gate->cors().headers(head_);
  auto verdict = context_.gate->admit(head_, peer_is_loopback_);
  if (auto* refused = std::get_if<Gate::Refused>(&verdict)) {
    early_answer_ = error_response(refused->error, pending_.request_id, head_.path);
    if (!refused->allow.empty()) early_answer_.headers.emplace_back("Allow", std::move(refused->allow));
    return false;
  }
  if (auto* preflight = std::get_if<Gate::Preflight>(&verdict)) {
    early_answer_ = std::move(*preflight);
    return false;
  }
  auto& admitted = std::get<Gate::Admitted>(verdict);
  pending_.trace = span_.begin(head_, *admitted.route, pending_.request_id, now());
  if (!answers_while_starting(admitted.route->policy, head_.method)) {
    if (const std::optional<HttpError> refused = context_.admission()) {
      span_.failed(refused->code);
      early_answer_ = error_response(*refused, pending_.request_id, head_.path);
      return false;
    }
  }
  route_ = admitted.route;
  pending_.path_param = std::move(admitted.path_param);
  pending_.tenant = admitted.tenant;
  return true;
}

asio::awaitable<bool> Connection::read_head() {
  HeadParser parser(context_.limits->header_bytes);
  TimePoint deadline = now() + context_.limits->idle_timeout;
  bool begun = false;
  for (;;) {
    if (!received_.empty()) {
      if (!begun) {
        begun = true;
        deadline = now() + context_.limits->header_timeout;
      }
      const HeadParser::State state = parser.parse(received_);
      if (state == HeadParser::State::done) {
        head_ = parser.head();
        co_return true;
      }
      if (state == HeadParser::State::error) {
        pending_.request_id = new_request_id();
        HttpError error = parser.error();
        co_await send_error(std::move(error), true);
        co_return false;
      }
    }
    if (peer_gone_ || closed_ || (draining_ && !begun)) co_return false;
    start_read();
    const bool in_time = co_await wait(deadline);
    if (!in_time && !begun) co_return false;
    if (!in_time) {
      pending_.request_id = new_request_id();
      HttpError error = bad_request(408, "request_timeout", "The request head did not arrive in time.");
      co_await send_error(std::move(error), true);
      co_return false;
    }
  }
}

asio::awaitable<bool> Connection::read_body() {
  BodyDecoder decoder(head_, context_.limits->body_bytes);
  pending_.body_share = ByteBudget::Share(context_.bodies);
  const TimePoint deadline = now() + context_.limits->body_timeout;
  bool told_to_continue = !head_.expect_continue;
  for (;;) {
    const BodyDecoder::State state = decoder.decode(received_);
    const bool has_room = pending_.body_share.grow_to(decoder.body_size());
    if (state == BodyDecoder::State::error || !has_room) {
      HttpError error = decoder.error();
      if (!has_room) error = to_http_error(make_error(ErrorCode::queue_full, std::string(kTooManyBytes)));
      co_await send_error(std::move(error), true);
      co_return false;
    }
    if (state == BodyDecoder::State::done) break;
    if (!told_to_continue) {
      told_to_continue = true;
      std::string interim = "HTTP/1.1 100 Continue\r\n\r\n";
      const bool sent = co_await send(std::move(interim));
      if (!sent) co_return false;
    }
    if (peer_gone_ || closed_) co_return false;
    start_read();
    const bool in_time = co_await wait(deadline);
    if (!in_time) {
      HttpError error = bad_request(408, "request_timeout", "The request body did not arrive in time.");
      co_await send_error(std::move(error), true);
      co_return false;
    }
  }
  pending_.body = decoder.take_body();
  co_return true;
}

asio::awaitable<bool> Connection::read_request() {
  const bool have_head = co_await read_head();
  if (!have_head) co_return false;
  if (!admit()) {
    // Nothing of the body is read before the gate says yes; so the connection cannot be used again if there is one.
    const bool has_body = head_.chunked || head_.content_length > 0;
    if (has_body) head_.keep_alive = false;
    HttpResponse response = std::exchange(early_answer_, {});
    route_ = nullptr;
    const bool go_on = co_await send_early(std::move(response), !head_.keep_alive || draining_);
    co_return go_on;
  }
  const bool have_body = co_await read_body();
  if (!have_body) {  // the client left, or an error was answered
    span_.left();
    span_.end();
  }
  co_return have_body;
}

asio::awaitable<bool> Connection::send_error(HttpError error, bool last) {
  span_.failed(error.code);
  HttpResponse response = error_response(error, pending_.request_id, head_.path);
  const bool go_on = co_await send_early(std::move(response), last);
  co_return go_on;
}

asio::awaitable<bool> Connection::send_early(HttpResponse response, bool last) {
  HeadOptions options = head_options(pending_.request_id);
  options.keep_alive = !last;
  options.content_length = response.body.size();
  std::string bytes = serialize_head(response, options);
  if (head_.method != Method::head) bytes += response.body;
  span_.answered(response.status);
  const bool sent = co_await send(std::move(bytes));
  span_.end();
  if (last) co_await linger();
  co_return sent && !last;
}

asio::awaitable<void> Connection::linger() {
  if (closed_) co_return;
  error_code ec;
  transport_->socket().shutdown(asio::ip::tcp::socket::shutdown_send, ec);
  const TimePoint deadline = now() + kLingerTime;
  size_t discarded = 0;
  while (!peer_gone_ && !closed_ && discarded < kMaxLingerBytes) {
    discarded += received_.size();
    received_.clear();
    start_read();
    const bool in_time = co_await wait(deadline);
    if (!in_time) break;
  }
}

void Connection::start_exchange() {
  pending_.head = head_;
  auto executor = wake_.get_executor();
  std::weak_ptr<Connection> weak = weak_from_this();
  exchange_ = std::make_shared<Exchange>(std::move(pending_), context_.limits->stream_bytes, [weak, executor] {
    asio::post(executor, [weak] {
      if (auto self = weak.lock()) self->notify();
    });
  });
  pending_ = HttpRequest{};
  head_sent_ = false;
}

void Connection::run_handler() {
  auto work = [exchange = exchange_, route = route_] {
    try {
      route->handler(exchange);
    } catch (const std::exception& error) {
      log_error("request {}: handler of {} threw: {}", exchange->request_id(), route->path, error.what());
      exchange->fail(make_error(ErrorCode::internal, "The server failed to handle the request."));
    }
  };
  if (exchange_->request().body.size() <= context_.limits->text_pool_body_bytes) {
    work();
  } else if (!context_.post_text_work([work, share = context_.posted_handlers->share()] { work(); })) {
    exchange_->fail(make_error(ErrorCode::queue_full, "Too many requests wait to be parsed; try again later."));
  }
}

HeadOptions Connection::head_options(std::string_view request_id) const {
  HeadOptions options;
  options.request_id = request_id;
  options.common = &common_headers_;
  return options;
}

// What goes on the wire for what the exchange has given.
std::string Connection::render(Exchange::Outgoing& out) {
  const bool keep_alive = head_.keep_alive && !draining_;
  HeadOptions options = head_options(exchange_->request_id());
  options.keep_alive = keep_alive;
  if (out.response) {
    head_.keep_alive = keep_alive;
    options.content_length = out.response->body.size();
    span_.answered(out.response->status);
    add_fields(out, *exchange_, *out.response);
    std::string head = serialize_head(*out.response, options);
    if (head_.method == Method::head) return head;
    out.response->body.insert(0, head);  // where it lies: a scrape is megabytes, which a second copy would cost again
    return std::move(out.response->body);
  }
  std::string bytes;
  if (!head_sent_) {
    head_sent_ = true;
    span_.answered(200);
    options.chunked = head_.http11;
    options.until_close = !head_.http11;
    options.keep_alive = keep_alive && head_.http11;
    head_.keep_alive = options.keep_alive;
    bytes = serialize_head(stream_head(out, *exchange_), options);
  }
  if (!head_.http11) return bytes + out.bytes;
  if (!out.bytes.empty()) {
    bytes += fmt::format("{:x}\r\n", out.bytes.size());
    bytes += out.bytes;
    bytes += "\r\n";
  }
  if (out.finished) bytes += "0\r\n\r\n";
  return bytes;
}

asio::awaitable<bool> Connection::carry_answer() {
  for (;;) {
    if (received_.size() < kMaxReadAhead) start_read();
    Exchange::Outgoing out = exchange_->take();
    if (peer_gone_ || closed_ || out.overflowed) co_return false;
    if (out.response || (out.streaming && (out.finished || !out.bytes.empty()))) {
      std::string bytes = render(out);
      const bool sent = co_await send(std::move(bytes));
      if (!sent || out.finished) co_return sent;
    } else if (out.finished) {
      co_return false;  // abandoned before there was an answer
    } else {
      const TimePoint deadline = now() + context_.limits->keep_alive_interval;
      const bool happened = co_await wait(deadline);
      if (!happened) exchange_->write_comment();
    }
  }
}

asio::awaitable<bool> Connection::answer() {
  start_exchange();
  run_handler();
  if (draining_) exchange_->drain();
  const bool answered = co_await carry_answer();
  if (exchange_->overflowed()) {
    log_warning("request {}: the client reads too slowly, cancelled", exchange_->request_id());
  }
  // After an error, too, nobody waits for what the request may still be doing.
  const bool failed = exchange_->failed();
  if (!answered || failed) exchange_->abandon();
  if (!answered) span_.left();
  if (failed) span_.failed(exchange_->error_code());
  span_.end();
  exchange_->detach();
  exchange_.reset();
  if (!answered) co_return false;
  if (!head_.keep_alive) co_await linger();
  co_return head_.keep_alive && !draining_;
}

asio::awaitable<void> Connection::run(std::shared_ptr<Connection> self) {
  const bool ready = co_await self->handshake();
  bool go_on = ready;
  while (go_on) {
    self->route_ = nullptr;
    self->head_ = HttpHead{};
    self->common_headers_ = self->context_.gate->cors().headers(self->head_);
    go_on = co_await self->read_request();
    if (go_on && self->route_ != nullptr) go_on = co_await self->answer();
  }
  self->close();
}

void Connection::drain() {
  draining_ = true;
  if (const auto exchange = exchange_) exchange->drain();
  notify();
}

void Connection::end_streams() {
  draining_ = true;
  if (exchange_) {
    auto exchange = exchange_;
    exchange->fail(make_error(ErrorCode::unavailable, "The server is shutting down."));
    exchange->abandon();
  } else {
    close();
  }
}

void Connection::close() {
  if (closed_) return;
  closed_ = true;
  error_code ec;
  transport_->socket().close(ec);
  notify();
}

}  // namespace inferneo
