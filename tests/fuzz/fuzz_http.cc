// Whatever the bytes and however they arrive, the same request comes out of them, or the same refusal, within the
// limits. The first byte says in which pieces.
#include <cstdint>
#include <string>
#include <string_view>

#include "require.h"
#include "server/body_decoder.h"
#include "server/head_parser.h"

namespace {

constexpr size_t kMaxHead = 512;
constexpr size_t kMaxBody = 256;

struct Outcome {
  int status = 0;  // of the refusal; 0: none, or more is needed
  bool complete = false;
  inferneo::HttpHead head;
  std::string body;
  std::string rest;

  bool operator==(const Outcome& other) const {
    // What follows a refused request is never looked at.
    return status == other.status && complete == other.complete && head.path == other.head.path &&
           head.query == other.head.query && head.headers == other.head.headers &&
           head.keep_alive == other.head.keep_alive && body == other.body && (status != 0 || rest == other.rest);
  }
};

Outcome read(std::string_view bytes, size_t piece) {
  Outcome out;
  inferneo::HeadParser parser(kMaxHead);
  auto head_state = inferneo::HeadParser::State::need_more;
  size_t at = 0;
  const auto more = [&] {
    if (at >= bytes.size()) return false;
    out.rest += bytes.substr(at, piece);
    at += piece;
    return true;
  };
  while (head_state == inferneo::HeadParser::State::need_more && more()) head_state = parser.parse(out.rest);
  if (head_state == inferneo::HeadParser::State::error) out.status = parser.error().status;
  if (head_state != inferneo::HeadParser::State::done) return out;
  out.head = parser.head();
  inferneo::BodyDecoder decoder(out.head, kMaxBody);
  auto state = decoder.decode(out.rest);
  while (state == inferneo::BodyDecoder::State::need_more && more()) state = decoder.decode(out.rest);
  require(decoder.body_size() <= kMaxBody, "a body is within its limit");
  if (state == inferneo::BodyDecoder::State::error) {
    out.status = decoder.error().status;
  } else {
    out.complete = state == inferneo::BodyDecoder::State::done;
    out.body = decoder.take_body();
  }
  while (more()) {
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = read(bytes, bytes.size() + 1);
  require(whole.status == 0 || (whole.status >= 400 && whole.status <= 505), "a refusal has a status");
  require(whole == read(bytes, 1 + data[0] % 7), "the pieces do not matter");
  if (whole.complete) {
    const inferneo::HttpHead& head = whole.head;
    require(!(head.chunked && head.header_count("content-length") > 0), "the framing is not ambiguous");
    require(head.header_count("host") == 1 || !head.http11, "one host");
    require(head.chunked || whole.body.size() == head.content_length, "a body has the length that was said");
    for (const auto& [name, value] : head.headers) {
      require((name + value).find_first_of(std::string_view("\0\r\n", 3)) == std::string::npos, "a field is one line");
    }
    require(head.path.find_first_of(std::string_view("\0\r\n ", 4)) == std::string::npos, "a path is one word");
  }
  return 0;
}
