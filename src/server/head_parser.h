// Request heads from bytes, without sockets. The only user of the HTTP library.
//
// Stricter than the library where request smuggling lives: bare LF, NUL, a second Host, Content-Length together with
// Transfer-Encoding, and transfer codings other than `chunked` are refused.
#pragma once

#include <optional>
#include <string>

#include "server/http_message.h"

namespace inferneo {

class HeadParser {
 public:
  explicit HeadParser(size_t max_bytes) : max_bytes_(max_bytes) {}

  enum class State { need_more, done, error };
  // Looks at the bytes received so far and not yet consumed; on `done` it has removed the head from their front.
  State parse(std::string& bytes);

  const HttpHead& head() const { return head_; }
  const HttpError& error() const { return error_; }

 private:
  State fail(int status, std::string code, std::string message);
  State parse_complete(std::string_view bytes);

  size_t max_bytes_;
  bool begun_ = false;  // the empty line that may come first is behind us
  size_t scanned_ = 0;  // bytes known to hold neither the end nor a forbidden character
  HttpHead head_;
  HttpError error_;
};

}  // namespace inferneo
