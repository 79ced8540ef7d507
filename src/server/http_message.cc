#include "server/http_message.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include "base/ascii.h"

#include "server/json_writer.h"

namespace inferneo {
namespace {

constexpr std::array<std::pair<int, std::string_view>, 26> kReasons = {{
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
}};

}  // namespace

std::string_view method_name(Method method) {
  switch (method) {
    case Method::get:
      return "GET";
    case Method::head:
      return "HEAD";
    case Method::post:
      return "POST";
    case Method::put:
      return "PUT";
    case Method::patch:
      return "PATCH";
    case Method::del:
      return "DELETE";
    case Method::options:
      return "OPTIONS";
    case Method::other:
      break;
  }
  return "OTHER";
}

const std::string* HttpHead::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return &value;
  }
  return nullptr;
}

size_t HttpHead::header_count(std::string_view lower_case_name) const {
  return static_cast<size_t>(
      std::count_if(headers.begin(), headers.end(), [&](const auto& h) { return h.first == lower_case_name; }));
}

HttpError to_http_error(const Error& error) {
  const ErrorInfo& info = error_info(error.code);
  HttpError out;
  out.status = error.http_status != 0 ? error.http_status : info.http_status;
  out.type = info.openai_type;
  out.code = info.name;
  out.message = error.message;
  out.param = error.param;
  if (error.retry_after > 0) out.retry_after = error.retry_after;
  return out;
}

HttpError bad_request(int status, std::string code, std::string message) {
  HttpError out;
  out.status = status;
  out.type = "invalid_request_error";
  out.code = std::move(code);
  out.message = std::move(message);
  return out;
}

std::string error_body(const HttpError& error, std::string_view request_id, std::string_view path) {
  JsonWriter json;
  if (path == "/v2" || path.starts_with("/v2/"))
    return json.begin_object().field("error", error.message).end_object().take();
  json.begin_object().key("error").begin_object();
  json.field("message", error.message).field("type", error.type).key("param");
  if (error.param.empty()) {
    json.null();
  } else {
    json.string(error.param);
  }
  json.field("code", error.code).field("request_id", request_id);
  json.end_object().end_object();
  return json.take();
}

HttpResponse error_response(const HttpError& error, std::string_view request_id, std::string_view path) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_body(error, request_id, path);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503) {
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  }
  // OpenAI's clients try every 5xx again, unless they are told not to.
  if (error.status == 501) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

std::string_view status_reason(int status) {
  for (const auto& [code, reason] : kReasons) {
    if (code == status) return reason;
  }
  return status < 500 ? "Refused" : "Failed";  // a routing rule may choose any status of errors
}

std::string serialize_head(const HttpResponse& response, const HeadOptions& options) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", response.status, status_reason(response.status));
  out += fmt::format("Date: {:%a, %d %b %Y %H:%M:%S} GMT\r\n", fmt::gmtime(std::time(nullptr)));
  out += fmt::format("x-request-id: {}\r\n", options.request_id);
  if (!response.content_type.empty()) out += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const HeaderList* fields : {&response.headers, options.common}) {
    if (fields == nullptr) continue;
    for (const auto& [name, value] : *fields) out += fmt::format("{}: {}\r\n", name, value);
  }
  out += "X-Content-Type-Options: nosniff\r\n";
  if (options.chunked) {
    out += "Transfer-Encoding: chunked\r\n";
  } else if (!options.until_close && response.status != 204 && response.status != 304) {  // neither has a body
    out += fmt::format("Content-Length: {}\r\n", options.content_length);
  }
  out += options.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0 || high * 16 + low == 0) return std::nullopt;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

}  // namespace inferneo
