// A hub on loopback for tests: serves repositories as the Hugging Face hub does, and misbehaves as a script says.
//
// A thread for each connection; every wait is bounded, and the destructor ends them all.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace inferneo::testing {

std::string sha256_hex(std::string_view content);
std::string git_blob_hex(std::string_view content);  // as git names the content
std::string pseudo_random_bytes(size_t size, uint32_t seed);

class ScriptedHub {
 public:
  struct File {
    std::string name;
    std::string content;
    bool large = false;  // named by its SHA-256, and redirected to the storage if there is one
    std::string etag() const { return large ? sha256_hex(content) : git_blob_hex(content); }
  };
  struct Request {
    std::string method;
    std::string target;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
    int nth = 0;  // of this method and target, from 1
    std::string header(const std::string& name) const;
  };
  struct Reply {
    int status = 200;
    std::map<std::string, std::string> headers = {};  // Content-Length comes by itself unless it is here
    std::string body = {};
    size_t send = SIZE_MAX;  // bytes of the body; then, if there are more, `then`
    enum class Then { close, reset, stall } then = Then::close;
  };
  // Changes what a well-behaved hub would reply. Called from several threads, one at a time.
  using Script = std::function<void(const Request&, Reply&)>;

  ScriptedHub();
  ~ScriptedHub();
  ScriptedHub(const ScriptedHub&) = delete;
  ScriptedHub& operator=(const ScriptedHub&) = delete;

  std::string endpoint() const;  // "http://127.0.0.1:port"
  // `revisions` (branches, tags) point to the commit, which is found by itself too.
  void add(const std::string& id, const std::string& commit, std::vector<File> files,
           std::set<std::string> revisions = {"main"});
  void set_storage(ScriptedHub* storage) { storage_ = storage; }  // another origin for large files
  void set_script(Script script);
  void set_token(std::string token) { token_ = std::move(token); }  // asked for by all but the storage's addresses

  std::vector<Request> requests() const;
  size_t count(std::string_view method, std::string_view part_of_target) const;

 private:
  struct Repository {
    std::string commit;
    std::vector<File> files;
    std::set<std::string> revisions;
  };

  void accept_loop();
  void serve(int fd);
  bool read_request(int fd, std::string& buffer, Request& request) const;
  bool send_reply(int fd, const Request& request, const Reply& reply) const;
  Reply reply_to(const Request& request) const;
  Reply list_reply(const std::string& rest) const;
  Reply tree_reply(const Repository& repository) const;
  Reply file_reply(const Request& request, const std::string& path) const;
  static Reply content_reply(const Request& request, const std::string& content);
  static Reply error_reply(int status, const std::string& code);

  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  ScriptedHub* storage_ = nullptr;
  std::string token_;
  std::map<std::string, Repository> repositories_;
  Script script_;
  mutable std::mutex mutex_;
  std::mutex script_mutex_;
  std::vector<Request> requests_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace inferneo::testing
