#include "swarm.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace inferneo::testing {
namespace {

TimePoint now() { return std::chrono::steady_clock::now(); }

}  // namespace

Client::Client(ClientPlan plan) : plan_(std::move(plan)) {
  if (plan_.skips_json) reader_.skip_json();
}

Client::~Client() {
  if (fd_ >= 0) ::close(fd_);
}

void Client::watch(uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.u32 = index_;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_, &event);
}

void Client::connect(uint16_t port, int epoll, uint32_t index) {
  epoll_ = epoll;
  index_ = index;
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) {
    trouble_ = fmt::format("no socket: {}", std::strerror(errno));
    return end(State::cut);
  }
  if (!plan_.reads) {  // small windows, or loopback alone would hold megabytes of a stream
    const int bytes = 4096;
    const int segment = 1000;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd_, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
  }
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.u32 = index_;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_, &event);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) {
    trouble_ = fmt::format("cannot connect: {}", std::strerror(errno));
    end(State::cut);
  }
}

void Client::end(State state) {
  state_ = state;
  ended_ = now();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void Client::leave() {
  if (is_over()) return;
  if (plan_.leave.reset) {
    const linger abort{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  end(State::left);
}

void Client::on_ready(uint32_t events) {
  if (is_over()) return;
  if (state_ == State::connecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      trouble_ = fmt::format("cannot connect: {}", std::strerror(error));
      return end(State::cut);
    }
    state_ = State::sending;
  }
  if (state_ == State::sending && !paused_) send_some();
  if (state_ == State::reading && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some();
}

void Client::send_some() {
  const bool half = plan_.leave.when == Leave::When::while_sending;
  const std::string_view wanted = std::string_view(plan_.request).substr(0, plan_.request.size() / (half ? 2 : 1));
  while (sent_ < wanted.size()) {
    const ssize_t n = ::send(fd_, wanted.data() + sent_, wanted.size() - sent_, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      trouble_ = fmt::format("cannot send: {}", std::strerror(errno));
      return end(State::cut);
    }
    sent_ += static_cast<size_t>(n);
  }
  if (half) {
    paused_ = true;
    return watch(0);
  }
  state_ = State::reading;
  watch(plan_.reads ? static_cast<uint32_t>(EPOLLIN) : 0U);
}

void Client::read_some() {
  if (!plan_.reads) {
    trouble_ = "the server ended the connection";
    return end(State::cut);
  }
  static thread_local std::array<char, 65536> buffer;
  const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    trouble_ = n == 0 ? "the server closed the connection" : fmt::format("cannot read: {}", std::strerror(errno));
    return end(State::cut);
  }
  reader_.feed(std::string_view(buffer.data(), static_cast<size_t>(n)));
  leave_if_due();
  if (!is_over() && (reader_.is_complete() || !reader_.breach().empty())) end(State::answered);
}

void Client::leave_if_due() {
  if (plan_.leave.when == Leave::When::at_event && reader_.num_events() >= plan_.leave.event) leave();
  if (plan_.leave.when == Leave::When::at_end) {
    for (const auto& [index, choice] : reader_.choices()) {
      if (choice.num_ends > 0) return leave();
    }
  }
}

Swarm::Swarm(uint16_t port) : port_(port), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

Swarm::~Swarm() {
  clients_.clear();
  ::close(epoll_);
}

Client& Swarm::add(ClientPlan plan) {
  clients_.push_back(std::make_unique<Client>(std::move(plan)));
  clients_.back()->connect(port_, epoll_, static_cast<uint32_t>(clients_.size() - 1));
  return *clients_.back();
}

void Swarm::start_leaving() {
  for (size_t i = 0; i < clients_.size(); ++i) {
    const Leave& leave = clients_[i]->plan_.leave;
    const bool timed = leave.when == Leave::When::after || leave.when == Leave::When::while_sending;
    if (timed) due_.emplace(now() + leave.after, i);
  }
}

void Swarm::poll(Duration at_most) {
  const TimePoint start = now();
  while (!due_.empty() && due_.top().first <= start) {
    clients_[due_.top().second]->leave();
    due_.pop();
  }
  if (!due_.empty()) at_most = std::min(at_most, due_.top().first - start);
  const auto millis = std::chrono::ceil<std::chrono::milliseconds>(at_most);
  std::array<epoll_event, 512> events;
  const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), static_cast<int>(millis.count()));
  for (int i = 0; i < n; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    clients_[event.data.u32]->on_ready(event.events);
  }
}

bool Swarm::run_until(const std::function<bool()>& condition, Duration limit) {
  const TimePoint deadline = now() + limit;
  while (!condition()) {
    if (now() > deadline) return false;
    poll(std::chrono::milliseconds(5));
  }
  return true;
}

bool Swarm::run_to_the_end(Duration limit) {
  // Clients end in no order: what is over is not looked at again.
  size_t next = 0;
  return run_until(
      [&] {
        while (next < clients_.size() && (clients_[next]->is_over() || !clients_[next]->plan_.reads)) ++next;
        return next == clients_.size();
      },
      limit);
}

size_t Swarm::num_asked() const {
  return static_cast<size_t>(std::ranges::count_if(clients_, [](const auto& client) { return client->has_asked(); }));
}

size_t Swarm::num_over() const {
  return static_cast<size_t>(std::ranges::count_if(clients_, [](const auto& client) { return client->is_over(); }));
}

std::string Swarm::make_room_for(size_t num_clients) {
  const rlim_t needed = 2 * num_clients + 256;  // both ends are in this process
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= needed) return {};
  if (limit.rlim_max < needed) {
    return fmt::format("{} clients need {} open files, and the hard limit here is {}: raise it (ulimit -Hn)",
                       num_clients, needed, limit.rlim_max);
  }
  limit.rlim_cur = needed;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return "the soft limit of open files cannot be raised to its hard limit";
  return {};
}

}  // namespace inferneo::testing
