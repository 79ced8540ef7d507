// A blocking client on a plain socket with a bound on every wait: tests send exactly the bytes they mean.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

struct RawResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

class RawClient {
 public:
  explicit RawClient(uint16_t port);
  ~RawClient();
  RawClient(RawClient&& other) noexcept;
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  RawClient& operator=(RawClient&&) = delete;

  bool connected() const { return fd_ >= 0; }
  bool send(std::string_view bytes);
  // The next whole response on this connection; none when it ends or the time is up before.
  std::optional<RawResponse> read_response(bool head_only = false);
  // Reads until `text` has come; false when it does not.
  bool read_until(std::string_view text);
  // True when the server closes the connection within the time.
  bool wait_closed();
  void close(bool reset = false);
  const std::string& received() const { return received_; }
  int fd() const { return fd_; }

  static constexpr std::chrono::seconds kPatience{10};

 private:
  bool read_some(std::chrono::steady_clock::time_point deadline);
  int fd_ = -1;
  bool ended_ = false;
  std::string received_;
};

// A request with the usual header fields.
std::string http_request(std::string_view method, std::string_view path, std::string_view body = "",
                         const std::vector<std::string>& headers = {});

// One request on a fresh connection.
std::optional<RawResponse> fetch(uint16_t port, std::string_view method, std::string_view path,
                                 std::string_view body = "", const std::vector<std::string>& headers = {});

// The payloads of an event stream's `data:` lines.
std::vector<std::string> sse_data(std::string_view body);

}  // namespace inferneo
