#include "server/head_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <charconv>

#include "base/ascii.h"

namespace inferneo {
namespace {

namespace http = boost::beast::http;

Method to_method(http::verb verb) {
  switch (verb) {
    case http::verb::get:
      return Method::get;
    case http::verb::head:
      return Method::head;
    case http::verb::post:
      return Method::post;
    case http::verb::put:
      return Method::put;
    case http::verb::patch:
      return Method::patch;
    case http::verb::delete_:
      return Method::del;
    case http::verb::options:
      return Method::options;
    default:
      return Method::other;
  }
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

HeadParser::State HeadParser::fail(int status, std::string code, std::string message) {
  error_ = bad_request(status, std::move(code), std::move(message));
  return State::error;
}

HeadParser::State HeadParser::parse(std::string& bytes) {
  // An empty line before the request line is tolerated, as RFC 9112 asks: one, in however many pieces it comes.
  if (!begun_) {
    if (bytes.empty() || bytes == "\r") return State::need_more;
    if (bytes.starts_with("\r\n")) bytes.erase(0, 2);
    begun_ = true;
  }
  for (const size_t end = std::min(bytes.size(), max_bytes_); scanned_ < end; ++scanned_) {
    const char c = bytes[scanned_];
    if (c == '\0') return fail(400, "bad_request", "The request head holds a NUL byte.");
    if (c != '\n') continue;
    if (scanned_ == 0 || bytes[scanned_ - 1] != '\r') {
      return fail(400, "bad_request", "Lines of the request head must end in CR LF.");
    }
    if (scanned_ >= 3 && bytes[scanned_ - 2] == '\n') {
      const size_t length = scanned_ + 1;
      const State state = parse_complete(std::string_view(bytes).substr(0, length));
      if (state == State::done) bytes.erase(0, length);
      return state;
    }
  }
  if (scanned_ >= max_bytes_) {
    return fail(431, "header_too_large", "The request head is longer than " + std::to_string(max_bytes_) + " bytes.");
  }
  return State::need_more;
}

HeadParser::State HeadParser::parse_complete(std::string_view bytes) {
  http::request_parser<http::empty_body> parser;
  parser.header_limit(static_cast<uint32_t>(max_bytes_ + 1));
  parser.body_limit(boost::none);  // the body is not this parser's business
  boost::system::error_code ec;
  parser.put(boost::asio::buffer(bytes.data(), bytes.size()), ec);
  if (ec == http::error::bad_version) return fail(505, "bad_version", "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
  if (ec || !parser.is_header_done()) return fail(400, "bad_request", "Malformed request head: " + ec.message() + ".");

  const auto& message = parser.get();
  head_ = HttpHead{};
  head_.method = to_method(message.method());
  const std::string_view target = view(message.target());
  const size_t question = target.find('?');
  head_.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) head_.query = std::string(target.substr(question + 1));
  for (const auto& field : message) {
    head_.headers.emplace_back(lower_case(view(field.name_string())), std::string(view(field.value())));
  }
  head_.http11 = message.version() >= 11;
  head_.keep_alive = message.keep_alive();

  const size_t lengths = head_.header_count("content-length");
  const size_t codings = head_.header_count("transfer-encoding");
  if (lengths > 1) return fail(400, "bad_request", "Content-Length is given more than once.");
  if (lengths > 0 && codings > 0) {
    return fail(400, "bad_request", "Content-Length and Transfer-Encoding exclude each other.");
  }
  if (codings > 0) {
    if (codings > 1 || lower_case(*head_.header("transfer-encoding")) != "chunked" || !head_.http11) {
      return fail(400, "bad_request", "The only transfer coding understood is `chunked`.");
    }
    head_.chunked = true;
  }
  if (lengths > 0) {
    // Digits and nothing else: the library also takes a list of equal lengths, which others may not.
    const std::string& text = *head_.header("content-length");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), head_.content_length);
    if (error != std::errc() || end != text.data() + text.size()) {
      return fail(400, "bad_request", "Content-Length is not a number.");
    }
  }
  const size_t hosts = head_.header_count("host");
  if (hosts > 1 || (hosts == 0 && head_.http11)) return fail(400, "bad_request", "Exactly one Host field is needed.");
  if (const std::string* expect = head_.header("expect")) {
    if (lower_case(*expect) != "100-continue") return fail(417, "expectation_failed", "Unknown expectation.");
    head_.expect_continue = head_.http11;
  }
  return State::done;
}

}  // namespace inferneo
