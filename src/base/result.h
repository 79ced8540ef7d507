// Expected failures as values. Every room returns Result<T> or Status for what can fail because of input, files,
// memory or load; exceptions stop at the edge of a room or thread, and checks (INFERNEO_CHECK) are for bugs only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace inferneo {

// Stable codes. One row per code in base/error_table.cc gives its name, HTTP status and OpenAI error type.
enum class ErrorCode : uint8_t {
  invalid_argument,   // the caller's value is wrong; `param` names the field
  not_found,          // no such model, file, route
  already_exists,     // registered twice
  conflict,           // the state of the thing does not allow it
  unsupported,        // understood, and not there (yet)
  context_too_long,   // prompt and wanted tokens exceed the model's context
  malformed,          // a file or message breaks its format
  refused,            // not allowed: outside the roots, a pickle, no key
  queue_full,         // try again later
  rate_limited,       // the caller's own limit; try again later
  unavailable,        // loading, draining, shutting down
  out_of_memory,      // would exceed a budget
  disk_full,          // the file system or a quota has no room
  deadline_exceeded,  // out of time
  cancelled,          // the client left or asked
  io_error,           // the system said no
  numeric,            // NaN or infinite logits
  payload_too_large,  // over a byte limit
  unauthorized,       // no key or a wrong one
  forbidden,          // foreign Origin or Host, admin from elsewhere
  method_not_allowed,
  internal,  // a bug of ours
};

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;  // names the thing and the way out; no addresses, no secrets
  std::string param;    // the request field at fault, if there is one
  int http_status = 0;  // instead of the code's own; 0: that one
  int retry_after = 0;  // seconds until another try has a chance; 0: not known
};

inline Error make_error(ErrorCode code, std::string message, std::string param = {}) {
  return Error{code, std::move(message), std::move(param), 0};
}

// A value or an Error. Reading the wrong one is a bug and ends the process with a message (bug, not input).
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    require(0);
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    require(0);
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    require(0);
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() & {
    require(1);
    return *std::get_if<1>(&state_);
  }
  const Error& error() const& {
    require(1);
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    require(1);
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  void require(size_t index) const;
  std::variant<T, Error> state_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

inline Status ok_status() { return {}; }

// A row of the error table.
struct ErrorInfo {
  ErrorCode code;
  std::string_view name;         // "invalid_argument"
  int http_status;               // 400
  std::string_view openai_type;  // "invalid_request_error"
};
const ErrorInfo& error_info(ErrorCode code);

[[noreturn]] void check_failed(const char* file, int line, const char* condition, std::string_view message);

template <typename T>
void Result<T>::require(size_t index) const {
  if (state_.index() != index) {
    check_failed(__FILE__, __LINE__, index == 0 ? "result.ok()" : "!result.ok()",
                 index == 0 ? std::string_view(std::get_if<1>(&state_)->message) : "result holds a value");
  }
}

}  // namespace inferneo

// For bugs, never reachable from input; active in every build.
#define INFERNEO_CHECK(condition, message)                                                 \
  do {                                                                                     \
    if (!(condition)) ::inferneo::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (false)

#define INFERNEO_CONCAT_(a, b) a##b
#define INFERNEO_CONCAT(a, b) INFERNEO_CONCAT_(a, b)
// ASSIGN_OR_RETURN(auto x, f());  RETURN_IF_ERROR(g());
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_IMPL_(INFERNEO_CONCAT(result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_IMPL_(result, declaration, expression) \
  auto result = (expression);                                   \
  if (!result.ok()) return std::move(result).error();           \
  declaration = std::move(result).value()
#define RETURN_IF_ERROR(expression)                                                    \
  do {                                                                                 \
    if (auto status_ = (expression); !status_.ok()) return std::move(status_).error(); \
  } while (false)
