// HTTP messages in native types. Nothing here, and nothing that includes this, knows the HTTP library.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "admission/tenant.h"
#include "base/result.h"
#include "server/byte_budget.h"
#include "tracing/request_trace.h"

namespace inferneo {

enum class Method : uint8_t { get, head, post, put, patch, del, options, other };
std::string_view method_name(Method method);

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// A request without its body. Field names are in lower case.
struct HttpHead {
  Method method = Method::other;
  std::string path;   // as sent: never percent-decoded, never normalised, so that no two readings of it can differ
  std::string query;  // without '?'
  HeaderList headers;
  bool http11 = true;
  bool keep_alive = true;
  bool expect_continue = false;
  bool chunked = false;
  uint64_t content_length = 0;

  const std::string* header(std::string_view lower_case_name) const;  // the first of that name, or null
  size_t header_count(std::string_view lower_case_name) const;
};

struct HttpRequest {
  HttpHead head;
  std::string body;
  ByteBudget::Share body_share;  // held as long as the request is under way
  std::string request_id;
  TenantId tenant = kDefaultTenant;           // of its key
  std::string path_param;                     // what `{id}` of the route stands for, percent-decoded
  std::shared_ptr<const RequestTrace> trace;  // null: it is not traced
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HeaderList headers;
  std::string body;
};

// An error as it goes out: some have a status that no engine error has (408, 415, 431).
struct HttpError {
  int status = 500;
  std::string type;  // OpenAI's error type
  std::string code;  // stable
  std::string message;
  std::string param;
  int retry_after = 1;  // seconds; goes out with 429 and 503
};
HttpError to_http_error(const Error& error);
HttpError bad_request(int status, std::string code, std::string message);

// {"error": {...}} with the request's id; on paths of the Open Inference Protocol, as that has it, {"error": "..."}.
std::string error_body(const HttpError& error, std::string_view request_id, std::string_view path);
HttpResponse error_response(const HttpError& error, std::string_view request_id, std::string_view path);

// Status line and header fields, the empty line included.
struct HeadOptions {
  std::string_view request_id;
  const HeaderList* common = nullptr;  // beside the response's own
  bool keep_alive = true;
  bool chunked = false;      // else content_length is sent
  bool until_close = false;  // neither: HTTP/1.0 streams
  size_t content_length = 0;
};
std::string serialize_head(const HttpResponse& response, const HeadOptions& options);

std::string_view status_reason(int status);

// Percent-decoding; none when an escape is broken or gives a NUL.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace inferneo
