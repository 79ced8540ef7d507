#include "server/exchange.h"

#include <algorithm>
#include <utility>

namespace inferneo {
namespace {

constexpr size_t kMaxRoute = 512;

}  // namespace

Exchange::Exchange(HttpRequest request, size_t max_queued_bytes, std::function<void()> wake)
    : request_(std::move(request)), max_queued_bytes_(max_queued_bytes), wake_(std::move(wake)) {}

void Exchange::wake_locked() {
  if (woken_ || !wake_) return;
  woken_ = true;
  wake_();
}

void Exchange::respond(HttpResponse response) {
  const std::lock_guard lock(mutex_);
  if (finished_ || streaming_) return;
  response_ = std::move(response);
  finished_ = true;
  wake_locked();
}

void Exchange::fail(const Error& error) { fail(to_http_error(error)); }

void Exchange::fail(const HttpError& error) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  if (streaming_) {
    queued_ += "data: " + error_body(error, request_.request_id, request_.head.path) + "\n\ndata: [DONE]\n\n";
  } else {
    response_ = error_response(error, request_.request_id, request_.head.path);
  }
  failed_ = true;
  error_code_ = error.code;
  finished_ = true;
  wake_locked();
}

void Exchange::expect_stream(Comment comment) {
  const std::lock_guard lock(mutex_);
  stream_expected_ = true;
  comment_ = std::move(comment);
}

void Exchange::set_route(std::string_view route) {
  std::string text;
  for (const char c : route.substr(0, kMaxRoute)) {
    if (c >= ' ' && c <= '~') text += c;  // a client's own words may be in it
  }
  const std::lock_guard lock(mutex_);
  route_ = std::move(text);
}

void Exchange::set_head_fields(std::function<HeaderList()> fields) {
  const std::lock_guard lock(mutex_);
  head_fields_ = std::move(fields);
}

HeaderList Exchange::head_fields() {
  std::function<HeaderList()> fields;
  {
    const std::lock_guard lock(mutex_);
    fields = head_fields_;
  }
  return fields ? fields() : HeaderList();
}

void Exchange::write_event(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  streaming_ = true;
  // One event may be larger than the limit by itself, which says nothing about the client.
  largest_event_ = std::max(largest_event_, bytes.size());
  if (queued_.size() + bytes.size() > max_queued_bytes_ + largest_event_) {
    overflowed_ = true;
    finished_ = true;
    woken_ = false;  // the connection sits in a write, and what woke it last is still to be taken
  } else {
    queued_ += bytes;
  }
  wake_locked();
}

void Exchange::finish_stream() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  streaming_ = true;
  finished_ = true;
  wake_locked();
}

void Exchange::on_abandoned(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!abandoned_) {
      on_abandoned_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::on_drain(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!draining_) {
      on_drain_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::drain() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    callback = std::exchange(on_drain_, nullptr);
  }
  if (callback) callback();
}

Exchange::Outgoing Exchange::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  Outgoing out;
  out.response = std::exchange(response_, std::nullopt);
  out.streaming = streaming_;
  out.bytes = std::exchange(queued_, {});
  out.route = route_;
  out.finished = finished_;
  out.overflowed = overflowed_;
  return out;
}

void Exchange::write_comment() {
  Comment comment;
  {
    const std::lock_guard lock(mutex_);
    comment = comment_;
  }
  const std::string text = comment ? comment() : std::string();
  const std::lock_guard lock(mutex_);
  if (finished_ || !(streaming_ || stream_expected_)) return;
  streaming_ = true;
  queued_ += ": " + (text.empty() ? "waiting" : text) + "\n\n";
}

void Exchange::abandon() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (abandoned_) return;
    abandoned_ = true;
    finished_ = true;
    callback = std::exchange(on_abandoned_, nullptr);
  }
  if (callback) callback();
}

bool Exchange::failed() {
  const std::lock_guard lock(mutex_);
  return failed_;
}

std::string Exchange::error_code() {
  const std::lock_guard lock(mutex_);
  return error_code_;
}

bool Exchange::overflowed() {
  const std::lock_guard lock(mutex_);
  return overflowed_;
}

void Exchange::detach() {
  std::function<void()> abandoned;  // destroyed outside the lock: they may hold the last reference to a request
  std::function<void()> ending;
  Comment comment;
  const std::lock_guard lock(mutex_);
  wake_ = nullptr;
  abandoned = std::exchange(on_abandoned_, nullptr);
  ending = std::exchange(on_drain_, nullptr);
  comment = std::exchange(comment_, nullptr);
  head_fields_ = nullptr;
}

void respond_json(Exchange& exchange, std::string body, int status) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  exchange.respond(std::move(response));
}

}  // namespace inferneo
