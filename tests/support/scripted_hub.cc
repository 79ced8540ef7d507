#include "support/scripted_hub.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <random>

namespace inferneo::testing {
namespace {

constexpr int kTickMs = 5;
constexpr int kPatienceTicks = 2000;  // ten seconds

std::string digest(const EVP_MD* type, std::string_view content) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes;
  unsigned size = 0;
  EVP_Digest(content.data(), content.size(), bytes.data(), &size, type, nullptr);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

std::string decoded(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      result += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

std::string sha256_hex(std::string_view content) { return digest(EVP_sha256(), content); }

std::string git_blob_hex(std::string_view content) {
  std::string text = fmt::format("blob {}", content.size());
  text.push_back('\0');
  return digest(EVP_sha1(), text.append(content));
}

std::string pseudo_random_bytes(size_t size, uint32_t seed) {
  std::minstd_rand random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() >> 8);
  return bytes;
}

std::string ScriptedHub::Request::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

ScriptedHub::ScriptedHub() {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 64) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

ScriptedHub::~ScriptedHub() {
  stopping_ = true;
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  ::close(listener_);
}

std::string ScriptedHub::endpoint() const { return fmt::format("http://127.0.0.1:{}", port_); }

void ScriptedHub::add(const std::string& id, const std::string& commit, std::vector<File> files,
                      std::set<std::string> revisions) {
  repositories_[id] = {commit, std::move(files), std::move(revisions)};
}

void ScriptedHub::set_script(Script script) {
  const std::lock_guard lock(script_mutex_);
  script_ = std::move(script);
}

std::vector<ScriptedHub::Request> ScriptedHub::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

size_t ScriptedHub::count(std::string_view method, std::string_view part_of_target) const {
  const std::vector<Request> all = requests();
  return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const Request& request) {
    return request.method == method && request.target.find(part_of_target) != std::string::npos;
  }));
}

void ScriptedHub::accept_loop() {
  while (!stopping_) {
    pollfd wait{listener_, POLLIN, 0};
    if (::poll(&wait, 1, kTickMs) <= 0) continue;
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) threads_.emplace_back([this, fd] { serve(fd); });
  }
}

void ScriptedHub::serve(int fd) {
  std::string buffer;
  Request request;
  while (read_request(fd, buffer, request)) {
    {
      const std::lock_guard lock(mutex_);
      request.nth = 1 + static_cast<int>(std::count_if(requests_.begin(), requests_.end(), [&](const Request& earlier) {
                      return earlier.method == request.method && earlier.target == request.target;
                    }));
      requests_.push_back(request);
    }
    Reply reply = reply_to(request);
    {
      const std::lock_guard lock(script_mutex_);
      if (script_) script_(request, reply);
    }
    if (!send_reply(fd, request, reply)) break;
  }
  ::close(fd);
}

bool ScriptedHub::read_request(int fd, std::string& buffer, Request& request) const {
  const auto read_until = [&](const auto& enough) {
    for (int tick = 0; !enough(); ++tick) {
      if (stopping_ || tick > kPatienceTicks) return false;
      pollfd wait{fd, POLLIN, 0};
      if (::poll(&wait, 1, kTickMs) <= 0) continue;
      std::array<char, 8192> chunk;
      const ssize_t got = ::recv(fd, chunk.data(), chunk.size(), 0);
      if (got <= 0) return false;
      buffer.append(chunk.data(), static_cast<size_t>(got));
    }
    return true;
  };
  if (!read_until([&] { return buffer.find("\r\n\r\n") != std::string::npos; })) return false;
  const size_t end = buffer.find("\r\n\r\n");
  std::string_view head(buffer.data(), end);
  request = {};
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, last - first - 1);
  while (head.find("\r\n") != std::string_view::npos) {
    head.remove_prefix(head.find("\r\n") + 2);
    const std::string_view field = head.substr(0, head.find("\r\n"));
    const size_t colon = field.find(": ");
    if (colon == std::string_view::npos) continue;
    std::string name(field.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = field.substr(colon + 2);
  }
  buffer.erase(0, end + 4);
  const std::string length = request.header("content-length");
  const size_t size = length.empty() ? 0 : std::stoull(length);
  if (!read_until([&] { return buffer.size() >= size; })) return false;
  request.body = buffer.substr(0, size);
  buffer.erase(0, size);
  return true;
}

bool ScriptedHub::send_reply(int fd, const Request& request, const Reply& reply) const {
  std::string text = fmt::format("HTTP/1.1 {} Scripted\r\n", reply.status);
  for (const auto& [name, value] : reply.headers) text += fmt::format("{}: {}\r\n", name, value);
  if (!reply.headers.contains("Content-Length")) text += fmt::format("Content-Length: {}\r\n", reply.body.size());
  text += "\r\n";
  const bool short_body = request.method != "HEAD" && reply.send < reply.body.size();
  if (request.method != "HEAD") text += std::string_view(reply.body).substr(0, std::min(reply.send, reply.body.size()));
  std::string_view left = text;
  for (int tick = 0; !left.empty() && !stopping_ && tick < kPatienceTicks;) {
    pollfd wait{fd, POLLOUT, 0};
    if (::poll(&wait, 1, kTickMs) <= 0) {
      ++tick;
      continue;
    }
    const ssize_t put = ::send(fd, left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0) return false;
    left.remove_prefix(static_cast<size_t>(put));
  }
  if (!short_body) return left.empty();
  if (reply.then == Reply::Then::stall) {
    for (int tick = 0; !stopping_ && tick < kPatienceTicks; ++tick) {
      pollfd wait{fd, POLLIN, 0};
      if (::poll(&wait, 1, kTickMs) > 0) break;  // the client left
    }
  } else if (reply.then == Reply::Then::reset) {
    const linger hard{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  }
  return false;
}

ScriptedHub::Reply ScriptedHub::error_reply(int status, const std::string& code) {
  return {.status = status, .headers = {{"X-Error-Code", code}, {"X-Error-Message", "scripted"}}, .body = "{}"};
}

ScriptedHub::Reply ScriptedHub::reply_to(const Request& request) const {
  const std::string target = decoded(request.target);
  constexpr std::string_view kStored = "/stored/";
  if (target.starts_with(kStored)) {
    for (const auto& [id, repository] : repositories_) {
      for (const File& file : repository.files) {
        if (file.etag() == target.substr(kStored.size(), 64)) return content_reply(request, file.content);
      }
    }
    return error_reply(404, "");
  }
  if (!token_.empty() && request.header("authorization") != "Bearer " + token_) return error_reply(401, "GatedRepo");
  constexpr std::string_view kList = "/api/models/";
  if (target.starts_with("/api/models?")) {
    nlohmann::json found = nlohmann::json::array();
    for (const auto& [id, repository] : repositories_) found.push_back({{"id", id}});
    return {.status = 200, .headers = {{"Content-Type", "application/json"}}, .body = found.dump()};
  }
  if (target.starts_with(kList)) return list_reply(target.substr(kList.size()));
  return file_reply(request, target.substr(1));
}

ScriptedHub::Reply ScriptedHub::list_reply(const std::string& rest) const {
  const bool tree = rest.find("/tree/") != std::string::npos;
  const std::string verb = tree ? "/tree/" : "/revision/";
  const std::string id = rest.substr(0, rest.find(verb));
  const auto found = repositories_.find(id);
  if (found == repositories_.end()) return error_reply(404, "RepoNotFound");
  const Repository& repository = found->second;
  std::string revision = rest.find(verb) == std::string::npos ? "main" : rest.substr(id.size() + verb.size());
  revision = revision.substr(0, revision.find('?'));
  if (revision != repository.commit && !repository.revisions.contains(revision)) {
    return error_reply(404, "RevisionNotFound");
  }
  if (tree) return tree_reply(repository);
  nlohmann::json list = {{"id", id}, {"sha", repository.commit}, {"siblings", nlohmann::json::array()}};
  for (const File& file : repository.files) list["siblings"].push_back({{"rfilename", file.name}});
  return {.status = 200, .headers = {{"Content-Type", "application/json"}}, .body = list.dump()};
}

ScriptedHub::Reply ScriptedHub::tree_reply(const Repository& repository) const {
  nlohmann::json list = nlohmann::json::array();
  for (const File& file : repository.files) {
    nlohmann::json entry = {{"type", "file"}, {"path", file.name}, {"size", file.content.size()}};
    entry["oid"] = git_blob_hex(file.content);
    if (file.large) {
      entry["lfs"] = {{"oid", file.etag()}, {"size", file.content.size()}, {"pointerSize", 134}};
    }
    list.push_back(entry);
  }
  return {.status = 200, .headers = {{"Content-Type", "application/json"}}, .body = list.dump()};
}

ScriptedHub::Reply ScriptedHub::file_reply(const Request& request, const std::string& path) const {
  constexpr std::string_view kVerb = "/resolve/";
  const std::string id = path.substr(0, path.find(kVerb));
  const auto found = repositories_.find(id);
  if (found == repositories_.end()) return error_reply(404, "RepoNotFound");
  const Repository& repository = found->second;
  const std::string rest = path.substr(id.size() + kVerb.size());
  const std::string revision = rest.substr(0, rest.find('/'));
  if (revision != repository.commit && !repository.revisions.contains(revision)) {
    return error_reply(404, "RevisionNotFound");
  }
  for (const File& file : repository.files) {
    if (file.name != rest.substr(revision.size() + 1)) continue;
    Reply reply;
    if (file.large && storage_ != nullptr) {
      reply.status = 302;
      reply.headers["Location"] = storage_->endpoint() + "/stored/" + file.etag() + "?signature=signed-secret";
      reply.headers["X-Linked-Size"] = std::to_string(file.content.size());
      reply.headers["X-Linked-Etag"] = '"' + file.etag() + '"';
      reply.headers["ETag"] = "\"of-the-redirect\"";
    } else {
      reply = content_reply(request, file.content);
      reply.headers["ETag"] = '"' + file.etag() + '"';
    }
    reply.headers["X-Repo-Commit"] = repository.commit;
    return reply;
  }
  return error_reply(404, "EntryNotFound");
}

ScriptedHub::Reply ScriptedHub::content_reply(const Request& request, const std::string& content) {
  Reply reply{.status = 200, .headers = {{"Accept-Ranges", "bytes"}}, .body = content};
  const std::string range = request.header("range");
  constexpr std::string_view kUnit = "bytes=";
  if (!range.starts_with(kUnit)) return reply;
  const size_t dash = range.find('-');
  const size_t first = std::stoull(range.substr(kUnit.size(), dash - kUnit.size()));
  const std::string last_text = range.substr(dash + 1);
  if (first >= content.size()) {
    return {.status = 416, .headers = {{"Content-Range", fmt::format("bytes */{}", content.size())}}, .body = ""};
  }
  const size_t last =
      last_text.empty() ? content.size() - 1 : std::min<size_t>(content.size() - 1, std::stoull(last_text));
  reply.status = 206;
  reply.headers["Content-Range"] = fmt::format("bytes {}-{}/{}", first, last, content.size());
  reply.body = content.substr(first, last - first + 1);
  return reply;
}

}  // namespace inferneo::testing
