// The span of a traced request from its head's arrival to the end of its answer, kept by its connection.
//
// Belongs to the connection's io thread. Only routes that clients pay work for are traced: POST with an API key, once
// the key has been accepted, so that nobody fills the collector who may not use the server.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/http_message.h"
#include "server/route_table.h"
#include "tracing/tracer.h"

namespace inferneo {

class ServerSpan {
 public:
  explicit ServerSpan(const Tracer* tracer) : tracer_(tracer) {}  // null: nothing is traced
  ~ServerSpan() { end(); }
  ServerSpan(const ServerSpan&) = delete;
  ServerSpan& operator=(const ServerSpan&) = delete;

  // The trace of the request whose head this is; null: it is not traced, and the rest does nothing. `route` outlives
  // the span.
  std::shared_ptr<const RequestTrace> begin(const HttpHead& head, const Route& route, std::string_view request_id,
                                            TimePoint now);
  void answered(int status) { status_ = status; }  // its head goes out
  void failed(std::string_view code) {             // of an error that the client gets
    if (trace_ != nullptr) error_ = code;
  }
  void left() { left_ = true; }  // the client, before the answer's end
  void end();                    // sends it; again: nothing

 private:
  const Tracer* tracer_;
  std::shared_ptr<const RequestTrace> trace_;
  const Route* route_ = nullptr;
  std::string request_id_;
  std::string error_;
  int status_ = 0;
  bool left_ = false;
};

}  // namespace inferneo
