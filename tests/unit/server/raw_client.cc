#include "raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace inferneo {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

}  // namespace

RawClient::RawClient(uint16_t port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) close();
}

RawClient::~RawClient() { close(); }

RawClient::RawClient(RawClient&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), ended_(other.ended_), received_(std::move(other.received_)) {}

void RawClient::close(bool reset) {
  if (fd_ < 0) return;
  if (reset) {
    const linger abort{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  ::close(fd_);
  fd_ = -1;
}

bool RawClient::send(std::string_view bytes) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
      continue;
    }
    if (errno != EAGAIN || std::chrono::steady_clock::now() > deadline) return false;
    pollfd waiting{fd_, POLLOUT, 0};
    poll(&waiting, 1, 100);
  }
  return true;
}

bool RawClient::read_some(std::chrono::steady_clock::time_point deadline) {
  if (ended_ || fd_ < 0) return false;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  pollfd waiting{fd_, POLLIN, 0};
  if (left.count() <= 0 || poll(&waiting, 1, static_cast<int>(left.count())) <= 0) return false;
  char buffer[16384];
  const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  received_.append(buffer, static_cast<size_t>(n));
  return true;
}

bool RawClient::read_until(std::string_view text) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (received_.find(text) == std::string::npos) {
    if (!read_some(deadline)) return false;
  }
  return true;
}

bool RawClient::wait_closed() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (read_some(deadline)) {
  }
  return ended_;
}

std::optional<RawResponse> RawClient::read_response(bool head_only) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  if (!read_until("\r\n\r\n")) return std::nullopt;
  RawResponse response;
  const size_t head_end = received_.find("\r\n\r\n") + 4;
  const std::string head = received_.substr(0, head_end);
  received_.erase(0, head_end);
  response.status = std::stoi(head.substr(9, 3));
  for (size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
    const size_t end = head.find("\r\n", at);
    const size_t colon = head.find(": ", at);
    if (end == at) break;
    response.headers[lower(head.substr(at, colon - at))] = head.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  if (head_only || response.status == 204 || response.status == 304) return response;  // none has a body
  if (const auto length = response.headers.find("content-length"); length != response.headers.end()) {
    const size_t wanted = std::stoul(length->second);
    while (received_.size() < wanted) {
      if (!read_some(deadline)) return std::nullopt;
    }
    response.body = received_.substr(0, wanted);
    received_.erase(0, wanted);
    return response;
  }
  if (response.headers["transfer-encoding"] != "chunked") {
    while (read_some(deadline)) {
    }
    response.body = std::exchange(received_, {});
    return response;
  }
  for (;;) {
    size_t line = 0;
    while ((line = received_.find("\r\n")) == std::string::npos) {
      if (!read_some(deadline)) return std::nullopt;
    }
    const size_t size = std::stoul(received_.substr(0, line), nullptr, 16);
    while (received_.size() < line + 2 + size + 2) {
      if (!read_some(deadline)) return std::nullopt;
    }
    response.body += received_.substr(line + 2, size);
    received_.erase(0, line + 2 + size + 2);
    if (size == 0) return response;
  }
}

std::string http_request(std::string_view method, std::string_view path, std::string_view body,
                         const std::vector<std::string>& headers) {
  std::string out(method);
  out += " ";
  out += path;
  out += " HTTP/1.1\r\n";
  bool has_host = false;
  bool has_type = false;
  for (const std::string& header : headers) {
    out += header + "\r\n";
    has_host |= lower(header).starts_with("host:");
    has_type |= lower(header).starts_with("content-type:");
  }
  if (!has_host) out += "Host: localhost\r\n";
  if (!has_type && method != "GET" && method != "HEAD") out += "Content-Type: application/json\r\n";
  if (!body.empty()) out += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  out += "\r\n";
  out += body;
  return out;
}

std::optional<RawResponse> fetch(uint16_t port, std::string_view method, std::string_view path, std::string_view body,
                                 const std::vector<std::string>& headers) {
  RawClient client(port);
  if (!client.connected() || !client.send(http_request(method, path, body, headers))) return std::nullopt;
  return client.read_response(method == "HEAD");
}

std::vector<std::string> sse_data(std::string_view body) {
  std::vector<std::string> out;
  for (size_t at = 0; at < body.size();) {
    const size_t end = std::min(body.find("\n\n", at), body.size());
    const std::string_view frame = body.substr(at, end - at);
    if (frame.starts_with("data: ")) out.emplace_back(frame.substr(6));
    at = end + 2;
  }
  return out;
}

}  // namespace inferneo
