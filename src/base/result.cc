#include "base/result.h"

#include <array>
#include <cstdio>
#include <cstdlib>

namespace inferneo {
namespace {

constexpr std::array kErrors = {
    ErrorInfo{ErrorCode::invalid_argument, "invalid_argument", 400, "invalid_request_error"},
    ErrorInfo{ErrorCode::not_found, "not_found", 404, "not_found_error"},
    ErrorInfo{ErrorCode::already_exists, "already_exists", 409, "invalid_request_error"},
    ErrorInfo{ErrorCode::conflict, "conflict", 409, "invalid_request_error"},
    ErrorInfo{ErrorCode::unsupported, "unsupported", 501, "not_implemented_error"},
    ErrorInfo{ErrorCode::context_too_long, "context_length_exceeded", 400, "invalid_request_error"},
    ErrorInfo{ErrorCode::malformed, "malformed", 400, "invalid_request_error"},
    ErrorInfo{ErrorCode::refused, "refused", 400, "invalid_request_error"},
    ErrorInfo{ErrorCode::queue_full, "queue_full", 429, "rate_limit_error"},
    ErrorInfo{ErrorCode::rate_limited, "rate_limit_exceeded", 429, "rate_limit_error"},
    ErrorInfo{ErrorCode::unavailable, "unavailable", 503, "service_unavailable_error"},
    ErrorInfo{ErrorCode::out_of_memory, "out_of_memory", 507, "insufficient_storage_error"},
    ErrorInfo{ErrorCode::disk_full, "disk_full", 507, "insufficient_storage_error"},
    ErrorInfo{ErrorCode::deadline_exceeded, "deadline_exceeded", 504, "timeout_error"},
    ErrorInfo{ErrorCode::cancelled, "cancelled", 499, "cancelled_error"},
    ErrorInfo{ErrorCode::io_error, "io_error", 500, "server_error"},
    ErrorInfo{ErrorCode::numeric, "numeric_error", 500, "server_error"},
    ErrorInfo{ErrorCode::payload_too_large, "payload_too_large", 413, "invalid_request_error"},
    ErrorInfo{ErrorCode::unauthorized, "invalid_api_key", 401, "authentication_error"},
    ErrorInfo{ErrorCode::forbidden, "forbidden", 403, "permission_error"},
    ErrorInfo{ErrorCode::method_not_allowed, "method_not_allowed", 405, "invalid_request_error"},
    ErrorInfo{ErrorCode::internal, "internal_error", 500, "server_error"},
};

}  // namespace

const ErrorInfo& error_info(ErrorCode code) {
  for (const ErrorInfo& info : kErrors) {
    if (info.code == code) return info;
  }
  return kErrors.back();
}

void check_failed(const char* file, int line, const char* condition, std::string_view message) {
  std::fprintf(stderr, "inferneo: bug at %s:%d: %s: %.*s\n", file, line, condition, static_cast<int>(message.size()),
               message.data());
  std::abort();
}

}  // namespace inferneo
