// What shadow traffic costs the originals: their latencies with every request copied, beside those without, and how
// many copies are answered.
//   shadow_bench [SECONDS [ROUNDS [LOAD [THREADS]]]]     default 10 10 0.4 0 (as many as there are processors)
// Real runner, bundled models: inferneo-story answers, inferneo-story-draft gets the copies. First the capacity is
// measured (64 clients, each sends its next request as soon as the last has ended); then Poisson arrivals at LOAD times
// that. A round has four parts of SECONDS each: without, with, with and without the shadow, the next round the other
// way about. Two neighbours without and with have the same arrivals (not the same prompts, or the second would find the
// first's in the prefix cache). Latencies count from the time that a request was due, so that a sender that comes late
// hides nothing. Prompts of about 40 tokens, 64 tokens out, greedy. A round in which others (the hypervisor, other
// programs) took more than 1 % of the machine's time in one of its parts is printed and does not count; another one
// replaces it, up to four times as many rounds in all.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "app/application.h"
#include "support/machine_watch.h"

namespace inferneo {
namespace {

constexpr int kClients = 64;
constexpr int kTokens = 64;
constexpr double kWarmSeconds = 2.0;
constexpr double kDisturbed = 0.01;     // of the machine's time, taken by others: such a round does not count
constexpr double kDrainSeconds = 10.0;  // for the copies that are left when the traffic ends

struct Times {
  std::vector<double> first_token;
  std::vector<double> inter_token;
  std::vector<double> end_to_end;
  double others = 0.0;  // share of the machine's time that others took
};

// Counts requests under way; all of them have ended when wait() returns.
class Crowd {
 public:
  void enter() {
    const std::lock_guard lock(mutex_);
    ++inside_;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    if (--inside_ == 0) empty_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    empty_.wait(lock, [this] { return inside_ == 0; });
  }
  std::mutex& mutex() { return mutex_; }

 private:
  std::mutex mutex_;
  std::condition_variable empty_;
  int inside_ = 0;
};

class TimedSink final : public OutputSink {
 public:
  using Done = std::function<void(TimePoint first, TimePoint last, bool ok)>;
  TimedSink(const Clock& clock, Done done) : clock_(clock), done_(std::move(done)) {}
  void on_delta(OutputDelta delta) override {
    if (!first_ && !delta.tokens.empty()) first_ = clock_.now();
  }
  void on_done(GenerateOutcome outcome) override {
    const TimePoint now = clock_.now();
    done_(first_.value_or(now), now, !outcome.error);
  }

 private:
  const Clock& clock_;
  const Done done_;
  std::optional<TimePoint> first_;
};

GenerateRequest request_of(uint64_t number) {
  constexpr std::string_view kNames[] = {"Lily", "Tom", "Anna", "Ben", "Mia", "Sam", "Lucy", "Max"};
  constexpr std::string_view kThings[] = {"boat", "garden", "hat", "dog", "kite", "cake", "river", "song"};
  std::mt19937_64 random(number);
  GenerateRequest request;
  request.request_id = fmt::format("bench-{}", number);
  request.model = "story";
  std::string prompt;
  for (int i = 0; i < 3; ++i) {
    prompt += fmt::format("One day {} found a {} near the {}. ", kNames[random() % 8], kThings[random() % 8],
                          kThings[random() % 8]);
  }
  request.prompt = prompt;
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = kTokens;
  request.sampling.ignore_eos = true;
  request.explicit_sampling.temperature = true;
  return request;
}

void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "{}\n", status.error().message);
  std::exit(1);
}

// Requests per second of a server that always has kClients of them.
double capacity_of(Application& application, double seconds) {
  Crowd crowd;
  std::atomic<uint64_t> number{0};
  std::atomic<uint64_t> ended{0};
  const TimePoint stop =
      application.clock().now() + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  std::function<void()> send = [&] {
    application.service().generate(
        request_of(number++), std::make_shared<TimedSink>(application.clock(), [&](TimePoint, TimePoint now, bool) {
          if (now < stop) {
            ++ended;
            send();
          } else {
            crowd.leave();
          }
        }));
  };
  for (int i = 0; i < kClients; ++i) {
    crowd.enter();
    send();
  }
  crowd.wait();
  return static_cast<double>(ended) / seconds;
}

// Poisson arrivals, the same for the same seed.
void send_traffic(Application& application, double rate, double seconds, uint64_t seed, Times& times) {
  Crowd crowd;
  const MachineWatch watch;
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(rate);
  const TimePoint begin = application.clock().now();
  uint64_t failures = 0;
  static uint64_t number = uint64_t{1} << 32;  // no two requests of a run have the same prompt
  for (double at = gap(random); at < seconds; at += gap(random)) {
    const TimePoint due = begin + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(at));
    std::this_thread::sleep_until(due);
    crowd.enter();
    auto done = [&crowd, &times, &failures, due](TimePoint first, TimePoint last, bool ok) {
      {
        const std::lock_guard lock(crowd.mutex());
        if (!ok) ++failures;
        times.first_token.push_back(to_seconds(first - due));
        times.inter_token.push_back(to_seconds(last - first) / (kTokens - 1));
        times.end_to_end.push_back(to_seconds(last - due));
      }
      crowd.leave();
    };
    application.service().generate(request_of(number++),
                                   std::make_shared<TimedSink>(application.clock(), std::move(done)));
  }
  crowd.wait();
  times.others = watch.taken_by_others();
  if (failures > 0) fmt::print("  {} originals FAILED\n", failures);
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

void print(const char* name, const Times& times) {
  const auto row = [](const std::vector<double>& values) {
    return fmt::format("{:.2f} {:.2f} {:.2f}", quantile(values, 0.5) * 1e3, quantile(values, 0.95) * 1e3,
                       quantile(values, 0.99) * 1e3);
  };
  fmt::print("  {:<4} {:5} requests  first token {}  inter-token {}  end to end {} ms (p50 p95 p99)", name,
             times.end_to_end.size(), row(times.first_token), row(times.inter_token), row(times.end_to_end));
  if (times.others > 0.0) fmt::print("  others {:.1f} %", 100.0 * times.others);
  fmt::print("\n");
}

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}
void append(Times& all, const Times& more) {
  append(all.first_token, more.first_token);
  append(all.inter_token, more.inter_token);
  append(all.end_to_end, more.end_to_end);
}

struct Copies {
  int64_t sent = 0;
  int64_t completed_in_time = 0;  // when the traffic ended
  int64_t completed = 0;          // after the drain
  int64_t dropped = 0;
  int64_t failed = 0;

  Copies& operator+=(const Copies& more) {
    sent += more.sent;
    completed_in_time += more.completed_in_time;
    completed += more.completed;
    dropped += more.dropped;
    failed += more.failed;
    return *this;
  }
};

Times run_with_shadow(Application& application, double rate, double seconds, uint64_t seed, Copies& copies) {
  ShadowBook& shadows = application.shadows();
  require(shadows.add({.name = "bench", .model = "story", .shadow_model = "draft"}));
  Times times;
  send_traffic(application, rate, seconds, seed, times);
  const auto results = shadows.find("bench")->results;
  const auto counts = [&] {
    const std::lock_guard lock(results->mutex);
    return results->counts;
  };
  copies.completed_in_time += counts().completed;
  const TimePoint limit =
      application.clock().now() + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(kDrainSeconds));
  while (shadows.find("bench")->in_hand > 0 && application.clock().now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  require(shadows.remove("bench"));
  const ShadowCounts last = counts();
  copies.sent += last.sent;
  copies.completed += last.completed;
  copies.dropped += last.all_dropped();
  copies.failed += last.failed;
  return times;
}

struct Part {
  bool shadow = false;
  Times times;
};

struct Round {
  std::vector<Part> parts;
  Copies copies;

  double others() const {
    double most = 0.0;
    for (const Part& part : parts) most = std::max(most, part.times.others);
    return most;
  }
};

// Without, with, with, without; the next round begins with. What drifts along within a round falls on both alike.
Round run_round(Application& application, double rate, double seconds, int number) {
  Round round;
  for (int i = 0; i < 4; ++i) {
    Part& part = round.parts.emplace_back();
    part.shadow = (i == 1 || i == 2) == (number % 2 == 0);
    const auto seed = static_cast<uint64_t>(2 * number + i / 2 + 1);
    if (part.shadow) {
      part.times = run_with_shadow(application, rate, seconds, seed, round.copies);
    } else {
      send_traffic(application, rate, seconds, seed, part.times);
    }
  }
  return round;
}

// The p95 with the shadow over that without, of each two neighbours with the same arrivals; and, to see what the
// machine does by itself, that of the second neighbour over the first's. Logarithms.
struct Ratios {
  struct Row {
    const char* name;
    std::vector<double> Times::*of;
    std::vector<double> shadow = {};
    std::vector<double> order = {};
  };
  std::vector<Row> rows = {
      {"first token", &Times::first_token}, {"inter-token", &Times::inter_token}, {"end to end", &Times::end_to_end}};

  void add(const Round& round) {
    for (size_t i = 0; i + 1 < round.parts.size(); i += 2) {
      for (Row& row : rows) {
        const auto p95 = [&](size_t part) { return quantile(round.parts[part].times.*row.of, 0.95); };
        const double change = std::log(p95(i + 1) / p95(i));
        row.order.push_back(change);
        row.shadow.push_back(round.parts[i].shadow ? -change : change);
      }
    }
  }
};

// The geometric mean with its 95 % interval: of 2,000 resamplings of the pairs (Efron's percentile bootstrap).
std::string mean_ratio(const std::vector<double>& logarithms) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<size_t> any(0, logarithms.size() - 1);
  const auto mean = [&](auto&& pick) {
    double sum = 0.0;
    for (size_t i = 0; i < logarithms.size(); ++i) sum += logarithms[pick(i)];
    return std::exp(sum / static_cast<double>(logarithms.size()));
  };
  std::vector<double> means;
  for (int i = 0; i < 2000; ++i) means.push_back(mean([&](size_t) { return any(random); }));
  return fmt::format("{:.3f} ({:.3f} to {:.3f})", mean([](size_t i) { return i; }), quantile(means, 0.025),
                     quantile(means, 0.975));
}

void print(const Ratios& ratios) {
  for (const Ratios::Row& row : ratios.rows) {
    fmt::print("p95 {:<11}  on/off {}  second/first {}  of {} pairs\n", row.name, mean_ratio(row.shadow),
               mean_ratio(row.order), row.shadow.size());
  }
}

int run(double seconds, int rounds, double load, int threads) {
  EngineConfig config;
  config.models = {{.source = INFERNEO_SOURCE_DIR "/models/inferneo-story", .name = "story"},
                   {.source = INFERNEO_SOURCE_DIR "/models/inferneo-story-draft", .name = "draft"}};
  config.max_memory_gb = 1.0;
  config.registry = "memory";
  config.num_threads = threads;
  auto made = Application::create(config);
  require(made.ok() ? ok_status() : Status(made.error()));
  Application& application = **made;
  require(application.load_models());
  capacity_of(application, kWarmSeconds);
  const double capacity = capacity_of(application, std::max(kWarmSeconds, seconds / 2));
  if (capacity <= 0.0) require(make_error(ErrorCode::unavailable, "no request ended within the time; take longer"));
  const double rate = capacity * load;
  fmt::print("{} threads, idle share {:g}; capacity {:.1f} requests/s, originals at {:.1f}/s\n",
             application.num_threads(), config.idle_compute_share, capacity, rate);
  Times off;
  Times on;
  Copies copies;
  Ratios ratios;
  int quiet = 0;
  for (int round = 0; quiet < rounds && round < 4 * rounds; ++round) {
    const Round times = run_round(application, rate, seconds, round);
    const bool disturbed = times.others() > kDisturbed;
    fmt::print("round {}{}\n", round + 1, disturbed ? ", disturbed: does not count" : "");
    for (const Part& part : times.parts) print(part.shadow ? "on" : "off", part.times);
    std::fflush(stdout);
    if (disturbed) continue;
    ++quiet;
    for (const Part& part : times.parts) append(part.shadow ? on : off, part.times);
    copies += times.copies;
    ratios.add(times);
  }
  fmt::print("all {} quiet rounds of {} wanted\n", quiet, rounds);
  if (quiet == 0) return 1;
  print("off", off);
  print("on", on);
  print(ratios);
  const auto share = [&](int64_t part) { return 100.0 * static_cast<double>(part) / static_cast<double>(copies.sent); };
  fmt::print(
      "copies: {} of {} originals; completed {:.1f} % when the traffic ended, {:.1f} % within {:g} s; "
      "{} dropped, {} failed\n",
      copies.sent, on.end_to_end.size(), share(copies.completed_in_time), share(copies.completed), kDrainSeconds,
      copies.dropped, copies.failed);
  return 0;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  const auto number = [&](int at, double otherwise) { return argc > at ? std::strtod(argv[at], nullptr) : otherwise; };
  return inferneo::run(number(1, 10.0), static_cast<int>(number(2, 10.0)), number(3, 0.4),
                       static_cast<int>(number(4, 0.0)));
}
