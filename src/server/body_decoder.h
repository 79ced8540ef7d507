// A request's body from bytes: by Content-Length or in chunks. Bounded by max_bytes whatever the sender claims.
#pragma once

#include <string>

#include "server/http_message.h"

namespace inferneo {

class BodyDecoder {
 public:
  BodyDecoder(const HttpHead& head, size_t max_bytes);

  enum class State { need_more, done, error };
  // Takes the body's bytes from the front of `bytes`; what follows the body stays.
  State decode(std::string& bytes);

  size_t body_size() const { return body_.size(); }  // so far
  std::string take_body() { return std::move(body_); }
  const HttpError& error() const { return error_; }

 private:
  enum class Phase { fixed, chunk_size, chunk_data, chunk_end, trailer };
  State fail(int status, std::string code, std::string message);
  State decode_fixed(std::string_view& bytes);
  State decode_chunks(std::string_view& bytes);
  // Takes a line without its CR LF; need_more when it is not whole yet.
  State take_line(std::string_view& bytes, std::string_view& line);
  State on_chunk_size(std::string_view line);

  Phase phase_;
  size_t max_bytes_;
  size_t left_ = 0;  // of the body (fixed) or of the chunk
  size_t trailer_bytes_ = 0;
  std::string body_;
  HttpError error_;
};

}  // namespace inferneo
