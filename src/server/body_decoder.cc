#include "server/body_decoder.h"

#include <algorithm>
#include <charconv>

namespace inferneo {
namespace {

constexpr size_t kMaxLine = 1024;  // a chunk-size line with its extensions, or a trailer field
constexpr size_t kMaxTrailer = 8 * 1024;

}  // namespace

BodyDecoder::BodyDecoder(const HttpHead& head, size_t max_bytes)
    : phase_(head.chunked ? Phase::chunk_size : Phase::fixed), max_bytes_(max_bytes) {
  if (!head.chunked) left_ = static_cast<size_t>(std::min<uint64_t>(head.content_length, max_bytes + 1));
}

BodyDecoder::State BodyDecoder::fail(int status, std::string code, std::string message) {
  error_ = bad_request(status, std::move(code), std::move(message));
  return State::error;
}

BodyDecoder::State BodyDecoder::decode(std::string& bytes) {
  std::string_view rest = bytes;
  const State state = phase_ == Phase::fixed ? decode_fixed(rest) : decode_chunks(rest);
  bytes.erase(0, bytes.size() - rest.size());
  return state;
}

BodyDecoder::State BodyDecoder::decode_fixed(std::string_view& bytes) {
  if (left_ > max_bytes_) {
    return fail(413, "payload_too_large", "The body is longer than " + std::to_string(max_bytes_) + " bytes.");
  }
  const size_t n = std::min(left_, bytes.size());
  body_.append(bytes.substr(0, n));
  bytes.remove_prefix(n);
  left_ -= n;
  return left_ == 0 ? State::done : State::need_more;
}

BodyDecoder::State BodyDecoder::take_line(std::string_view& bytes, std::string_view& line) {
  const size_t end = bytes.substr(0, kMaxLine).find('\n');
  if (end == std::string_view::npos) {
    return bytes.size() >= kMaxLine ? fail(400, "bad_request", "A line of the chunked body is too long.")
                                    : State::need_more;
  }
  if (end == 0 || bytes[end - 1] != '\r') return fail(400, "bad_request", "Lines of a chunked body must end in CR LF.");
  line = bytes.substr(0, end - 1);
  bytes.remove_prefix(end + 1);
  return State::done;
}

BodyDecoder::State BodyDecoder::on_chunk_size(std::string_view line) {
  uint64_t size = 0;
  const auto [end, ec] = std::from_chars(line.data(), line.data() + line.size(), size, 16);
  std::string_view rest = line.substr(static_cast<size_t>(end - line.data()));  // an extension, which is read past
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  const bool whole = rest.empty() || rest.front() == ';';
  if (ec == std::errc::result_out_of_range || (ec == std::errc() && whole && size > max_bytes_ - body_.size())) {
    return fail(413, "payload_too_large", "The body is longer than " + std::to_string(max_bytes_) + " bytes.");
  }
  if (ec != std::errc() || !whole || line.find('\0') != std::string_view::npos) {
    return fail(400, "bad_request", "A chunk size is not a hexadecimal number.");
  }
  left_ = static_cast<size_t>(size);
  phase_ = size == 0 ? Phase::trailer : Phase::chunk_data;
  return State::done;
}

BodyDecoder::State BodyDecoder::decode_chunks(std::string_view& bytes) {
  for (;;) {
    if (phase_ == Phase::chunk_data) {
      const size_t n = std::min(left_, bytes.size());
      body_.append(bytes.substr(0, n));
      bytes.remove_prefix(n);
      left_ -= n;
      if (left_ > 0) return State::need_more;
      phase_ = Phase::chunk_end;
    }
    std::string_view line;
    if (const State state = take_line(bytes, line); state != State::done) return state;
    if (phase_ == Phase::chunk_end) {
      if (!line.empty()) return fail(400, "bad_request", "A chunk is longer than its size says.");
      phase_ = Phase::chunk_size;
    } else if (phase_ == Phase::chunk_size) {
      if (on_chunk_size(line) == State::error) return State::error;
    } else {  // trailer fields are read past, never used
      if (line.empty()) return State::done;
      trailer_bytes_ += line.size() + 2;
      if (trailer_bytes_ > kMaxTrailer) return fail(431, "header_too_large", "The trailer is too long.");
    }
  }
}

}  // namespace inferneo
