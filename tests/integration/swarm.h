// Thousands of HTTP clients on one thread: an epoll loop over loopback sockets, each client with a plan of its own.
//
// One owner thread, which also runs the clients: nothing happens but inside poll(). Every wait is bounded.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "base/clock.h"
#include "stream_reader.h"

namespace inferneo::testing {

// When a client goes away without having been answered to the end.
struct Leave {
  enum class When : uint8_t {
    never,
    while_sending,  // half of its request is sent
    after,          // a time after start_leaving()
    at_event,       // so many events have been read
    at_end,         // the finish reason is there, [DONE] is not read any more
  };
  When when = When::never;
  Duration after{};
  size_t event = 1;
  bool reset = false;  // by RST instead of an orderly close
};

struct ClientPlan {
  std::string request;
  Leave leave;
  bool reads = true;  // false: sends and never reads, with small buffers
  bool skips_json = false;
};

class Client {
 public:
  explicit Client(ClientPlan plan);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();

  enum class State : uint8_t { connecting, sending, reading, answered, left, cut };
  State state() const { return state_; }
  bool is_over() const { return state_ >= State::answered; }
  bool has_asked() const { return state_ >= State::reading || paused_; }  // sent all that it sends before an answer
  const StreamReader& reader() const { return reader_; }
  TimePoint ended() const { return ended_; }
  const std::string& trouble() const { return trouble_; }  // of the socket

 private:
  friend class Swarm;
  void connect(uint16_t port, int epoll, uint32_t index);
  void on_ready(uint32_t events);
  void send_some();
  void read_some();
  void leave_if_due();
  void leave();
  void end(State state);
  void watch(uint32_t events) const;

  ClientPlan plan_;
  StreamReader reader_;
  State state_ = State::connecting;
  bool paused_ = false;
  int fd_ = -1;
  int epoll_ = -1;
  uint32_t index_ = 0;
  size_t sent_ = 0;
  TimePoint ended_{};
  std::string trouble_;
};

class Swarm {
 public:
  explicit Swarm(uint16_t port);
  ~Swarm();
  Swarm(const Swarm&) = delete;
  Swarm& operator=(const Swarm&) = delete;

  Client& add(ClientPlan plan);  // connects at once
  void start_leaving();          // the times of Leave::When::after count from here; who leaves while sending goes now
  void poll(Duration at_most);
  // Polls until the condition holds; false: not within the limit.
  bool run_until(const std::function<bool()>& condition, Duration limit);
  bool run_to_the_end(Duration limit);  // until every client but those that never read is over

  const std::vector<std::unique_ptr<Client>>& clients() const { return clients_; }
  size_t num_asked() const;
  size_t num_over() const;

  // Raises the soft limit of open files to what so many clients and the server's side of them need; empty when that is
  // possible, else a sentence.
  static std::string make_room_for(size_t num_clients);

 private:
  uint16_t port_;
  int epoll_;
  std::vector<std::unique_ptr<Client>> clients_;
  using Due = std::pair<TimePoint, size_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace inferneo::testing
