// What a server needs to know, as plain data; the program's configuration fills it. Defaults are the safe ones.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace inferneo {

struct ServerLimits {
  size_t header_bytes = 32 * 1024;              // request line and header fields; more is 431
  size_t body_bytes = 8 * 1024 * 1024;          // more is 413
  size_t all_bodies_bytes = size_t{512} << 20;  // of all requests under way together; more is 429
  size_t stream_bytes = 1024 * 1024;            // unsent bytes of one stream before its request is cancelled
  size_t text_pool_body_bytes = 64 * 1024;      // longer bodies are parsed on the text pool, not on an io thread
  int max_connections = 8192;                   // more are answered 503 at once
  Duration handshake_timeout = std::chrono::seconds(10);  // TLS
  Duration header_timeout = std::chrono::seconds(10);     // from a request's first byte to the end of its header
  Duration body_timeout = std::chrono::seconds(60);
  Duration idle_timeout = std::chrono::seconds(75);         // between the requests of a connection
  Duration write_timeout = std::chrono::seconds(30);        // of a write that makes no progress
  Duration keep_alive_interval = std::chrono::seconds(15);  // a silent stream gets an SSE comment this often
  Duration drain_timeout = std::chrono::seconds(30);        // after request_stop(), before streams are ended
};

// A key with a name of its own: itself, or its SHA-256 in hexadecimal digits, so that no file need hold it.
struct NamedKey {
  std::string key;
  std::string sha256;
};

struct ServerConfig {
  std::string host = "127.0.0.1";  // an IP address or `localhost`
  uint16_t port = 8000;            // 0: any free one
  int io_threads = 0;              // 0: min(available cpus, 4)
  // Keys of the API; without any, none is needed. Each is a tenant: numbered from 1, `api_keys` first.
  std::vector<std::string> api_keys;
  std::vector<NamedKey> named_keys;
  std::vector<std::string> admin_keys;  // empty: admin routes answer loopback peers only
  std::string tls_cert_file;            // PEM chain; with tls_key_file: HTTPS
  std::string tls_key_file;
  bool insecure = false;                     // allows a public bind without a key
  bool metrics_need_key = false;             // /metrics is open unless set
  std::vector<std::string> allowed_origins;  // of pages that may read answers (CORS), as browsers write them; "*": all
  ServerLimits limits;
};

}  // namespace inferneo
