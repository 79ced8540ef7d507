// One request and its answer, between a handler (with the sinks it makes) and the connection that carries them.
//
// Threads: handlers and sinks may call from any thread; nothing blocks: bytes are queued under a short lock and the
// connection is woken once for whatever has gathered by then, so that tokens queued during a write leave in one write.
// Invariants: at most one answer; after the end of the answer everything written is dropped; the callback of
// on_abandoned runs at most once. An exchange outlives its connection safely: detach() cuts the tie.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "server/http_message.h"

namespace inferneo {

class Exchange {
 public:
  Exchange(HttpRequest request, size_t max_queued_bytes, std::function<void()> wake);

  const HttpRequest& request() const { return request_; }
  const std::string& request_id() const { return request_.request_id; }
  std::string take_body() { return std::move(request_.body); }  // by the handler, once

  // The handler's side.
  void respond(HttpResponse response);  // the whole answer; ignored once a stream has begun
  void fail(const Error& error);        // an error answer, or the error event that ends a begun stream
  void fail(const HttpError& error);
  // The answer will be an event stream: it may be opened while nothing is ready. `comment` says what is waited for,
  // each time that the connection wants to show that it lives; empty: nothing to say.
  using Comment = std::function<std::string()>;
  void expect_stream(Comment comment = {});
  // For x-inferneo-route; too late once an answer has begun. What a header cannot hold is left out.
  void set_route(std::string_view route);
  // Asked for further fields of the answer's head when it goes out.
  void set_head_fields(std::function<HeaderList()> fields);
  void write_event(std::string_view bytes);  // whole SSE frames; the first opens the stream
  void finish_stream();
  // Runs when nobody waits for the answer any more: the client left or reads too slowly, or the server ends.
  // At once when that has happened already.
  void on_abandoned(std::function<void()> callback);
  // Runs when the server begins to end, which waits for answers in hand: for those that could keep it long, to end
  // now. At once when that has happened already.
  void on_drain(std::function<void()> callback);

  // The connection's side.
  struct Outgoing {
    std::optional<HttpResponse> response;  // a whole answer
    bool streaming = false;                // else, when true: bytes belong to an event stream
    std::string bytes;
    std::string route;        // see set_route()
    bool finished = false;    // nothing follows
    bool overflowed = false;  // the client reads too slowly
  };
  Outgoing take();
  HeaderList head_fields();  // see set_head_fields()
  void write_comment();      // opens an expected stream, keeps an open one alive
  void abandon();
  void drain();
  bool failed();             // the answer was an error
  std::string error_code();  // of that error; empty: it was none
  bool overflowed();         // more was written than a client that reads would have left
  void detach();             // the connection ends: no wake-ups any more

 private:
  void wake_locked();

  HttpRequest request_;
  const size_t max_queued_bytes_;
  std::mutex mutex_;
  std::function<void()> wake_;
  bool woken_ = false;
  bool stream_expected_ = false;
  bool streaming_ = false;
  bool finished_ = false;
  bool failed_ = false;
  std::string error_code_;
  bool overflowed_ = false;
  bool abandoned_ = false;
  std::optional<HttpResponse> response_;
  std::string queued_;
  std::string route_;
  bool draining_ = false;
  size_t largest_event_ = 0;
  Comment comment_;
  std::function<HeaderList()> head_fields_;
  std::function<void()> on_abandoned_;
  std::function<void()> on_drain_;
};

// The whole answer: a JSON document.
void respond_json(Exchange& exchange, std::string body, int status = 200);

}  // namespace inferneo
