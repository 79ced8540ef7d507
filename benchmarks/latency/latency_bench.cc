// The twin of benchmark_latency.py: the same requests, modes and numbers, from C++, so that what Python costs can be
// told apart (overhead.py runs both).
//   latency_bench [--model DIR] [--num-runs N] [--warmup N] [--batch-size N] [--concurrency N] [--max-tokens N]
//                 [--num-threads N] [--max-memory-gb X] [--modes single,batch,concurrent] [--pause MS] [--no-stream]
//                 [--in-callback]
// Prints JSON as benchmark_latency.py --json writes it, without standard deviations and the times of whole batches.
// With --no-stream nothing is told before the end. With --in-callback a client asks again on the engine's thread that
// told it the end, and not on one of its own. With --slices it stays ready: for each line on its standard input, the
// name of a mode, it runs that mode once more and prints its numbers in one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <functional>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "inferneo/engine.h"

namespace inferneo {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model = INFERNEO_SOURCE_DIR "/models/inferneo-story";
  std::string prompt = "Once upon a time there was a fox who";
  std::vector<std::string> modes = {"single", "batch", "concurrent"};
  int num_runs = 100;
  int warmup = 3;
  int batch_size = 8;
  int concurrency = 16;
  int max_tokens = 32;
  int num_threads = 0;
  double max_memory_gb = 1.0;
  double pause = 0.0;  // milliseconds that the caller computes between single requests
  bool no_stream = false;
  bool slices = false;
  bool in_callback = false;
};

struct Sample {  // seconds since it was sent
  double first_token = 0.0;
  double total = 0.0;
  double engine = 0.0;  // of it: from the engine's taking the request to its last token
  int tokens = 0;
};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Requests under way, each of which may ask for the next at its end; wait() returns when there are none. Ends are
// handed to the thread in wait(), one after the other, as to an event loop: a program whose state has one thread does
// so, and Python's does.
class Mode {
 public:
  Mode(InferneoEngine& engine, const Options& options, std::string name)
      : engine_(engine), options_(options), name_(std::move(name)) {}

  // As a program does that waits for each answer: the time ends when its thread has it.
  void ask_and_wait(int number) {
    Sample sample;
    const Clock::time_point begin = Clock::now();
    const auto on_text = [&sample, begin](int, std::string_view) {
      if (sample.first_token == 0.0) sample.first_token = seconds_since(begin);
    };
    auto answer = options_.no_stream ? engine_.generate(prompt(number), sampling())
                                     : engine_.generate_stream(prompt(number), sampling(), on_text);
    const Result<GenerationResult> result = answer.get();
    sample.total = seconds_since(begin);
    ended(sample, result);
  }
  // Calls `then` in wait().
  void ask(int number, std::function<void()> then) {
    {
      const std::lock_guard lock(mutex_);
      ++open_;
    }
    auto sample = std::make_shared<Sample>();
    const Clock::time_point begin = Clock::now();
    GenerationCallbacks callbacks;
    if (!options_.no_stream) {
      callbacks.on_text = [sample, begin](int, std::string_view) {
        if (sample->first_token == 0.0) sample->first_token = seconds_since(begin);
      };
    }
    callbacks.on_done = [this, sample, begin, then = std::move(then)](Result<GenerationResult> result) {
      auto held = std::make_shared<Result<GenerationResult>>(std::move(result));
      std::function<void()> end = [this, sample, begin, then, held] {
        sample->total = seconds_since(begin);
        ended(*sample, *held);
        if (held->ok()) then();
      };
      if (options_.in_callback) std::exchange(end, [] {})();
      const std::lock_guard lock(mutex_);
      ends_.push_back(std::move(end));
      arrived_.notify_one();
    };
    engine_.submit(prompt(number), sampling(), std::move(callbacks));
  }
  void wait() {
    std::unique_lock lock(mutex_);
    while (open_ > 0) {
      arrived_.wait(lock, [this] { return !ends_.empty(); });
      const std::function<void()> end = std::move(ends_.front());
      ends_.pop_front();
      lock.unlock();
      end();
      lock.lock();
      --open_;
    }
  }
  int next() {
    const std::lock_guard lock(mutex_);
    return next_++;
  }

  std::vector<Sample> samples;
  std::string error;

 private:
  std::string prompt(int number) const { return fmt::format("{} {}: {}", number, name_, options_.prompt); }
  SamplingParams sampling() const {
    SamplingParams sampling;
    sampling.temperature = 0.0F;
    sampling.ignore_eos = true;
    sampling.max_tokens = options_.max_tokens;
    return sampling;
  }
  void ended(Sample sample, const Result<GenerationResult>& result) {
    const std::lock_guard lock(mutex_);
    if (!result.ok()) {
      error = result.error().message;
      return;
    }
    sample.tokens = result->completion_tokens;
    sample.engine = result->total_time;
    if (sample.first_token == 0.0) sample.first_token = options_.no_stream ? result->time_to_first_token : sample.total;
    samples.push_back(sample);
  }

  InferneoEngine& engine_;
  const Options& options_;
  const std::string name_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> ends_;
  int open_ = 0;
  int next_ = 0;
};

// Linear between the two nearest ranks, as numpy's default.
double percentile(const std::vector<double>& ordered, double share) {
  const double place = share * static_cast<double>(ordered.size() - 1);
  const auto low = static_cast<size_t>(std::floor(place));
  const auto high = static_cast<size_t>(std::ceil(place));
  return ordered[low] + (ordered[high] - ordered[low]) * (place - static_cast<double>(low));
}

Json statistics_of(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  double sum = 0.0;
  for (const double value : values) sum += value;
  return {{"count", values.size()},
          {"mean", sum / static_cast<double>(values.size())},
          {"median", percentile(values, 0.5)},
          {"p95", percentile(values, 0.95)},
          {"p99", percentile(values, 0.99)},
          {"min", values.front()},
          {"max", values.back()}};
}

Json report_of(const std::vector<Sample>& samples, double seconds) {
  std::vector<double> totals;
  std::vector<double> firsts;
  std::vector<double> gaps;
  std::vector<double> outside;
  int tokens = 0;
  for (const Sample& sample : samples) {
    totals.push_back(sample.total);
    firsts.push_back(sample.first_token);
    outside.push_back(sample.total - sample.engine);
    if (sample.tokens > 1) gaps.push_back((sample.total - sample.first_token) / (sample.tokens - 1));
    tokens += sample.tokens;
  }
  return {{"requests", samples.size()},
          {"tokens", tokens},
          {"seconds", seconds},
          {"requests_per_second", static_cast<double>(samples.size()) / seconds},
          {"tokens_per_second", tokens / seconds},
          {"latency", statistics_of(totals)},
          {"time_to_first_token", statistics_of(firsts)},
          {"inter_token", statistics_of(gaps)},
          {"outside_engine", statistics_of(outside)},
          {"latencies", totals}};
}

// A batch waits for all of its requests before the next begins.
void run_mode(Mode& mode, const std::string& name, const Options& options, int count) {
  if (name == "concurrent") {
    std::function<void()> again = [&] {
      const int number = mode.next();
      if (number < count) mode.ask(number, again);
    };
    for (int client = 0; client < std::min(options.concurrency, count); ++client) again();
    return mode.wait();
  }
  if (name == "single") {
    for (int number = 0; number < count && mode.error.empty(); ++number) {
      mode.ask_and_wait(number);
      const Clock::time_point answered = Clock::now();
      while (seconds_since(answered) * 1e3 < options.pause) {
      }
    }
    return;
  }
  for (int begin = 0; begin < count && mode.error.empty(); begin += options.batch_size) {
    for (int number = begin; number < std::min(begin + options.batch_size, count); ++number) mode.ask(number, [] {});
    mode.wait();
  }
}

// null: it failed, and has said why.
Json measured(InferneoEngine& engine, const Options& options, const std::string& name, const std::string& tag) {
  Mode mode(engine, options, tag + name);
  const Clock::time_point begin = Clock::now();
  run_mode(mode, name, options, options.num_runs);
  const double seconds = seconds_since(begin);
  if (mode.error.empty()) return report_of(mode.samples, seconds);
  fmt::print(stderr, "latency_bench: {}\n", mode.error);
  return nullptr;
}

bool warm_up(InferneoEngine& engine, const Options& options, const std::string& name) {
  Mode warm(engine, options, "warm-up " + name);
  run_mode(warm, "single", options, options.warmup);
  if (!warm.error.empty()) fmt::print(stderr, "latency_bench: {}\n", warm.error);
  return warm.error.empty();
}

int run_slices(InferneoEngine& engine, const Options& options) {
  if (!warm_up(engine, options, "slices")) return 1;
  fmt::print("ready\n");
  std::fflush(stdout);
  int number = 0;
  for (std::string name; std::getline(std::cin, name);) {
    const Json report = measured(engine, options, name, fmt::format("{} ", number++));
    if (report.is_null()) return 1;
    fmt::print("{}\n", report.dump());
    std::fflush(stdout);
  }
  return 0;
}

int run(const Options& options) {
  EngineConfig config;
  config.model = {options.model};
  config.max_memory_gb = options.max_memory_gb;
  config.num_threads = options.num_threads;
  InferneoEngine engine(config);
  if (const Status started = engine.start(); !started.ok()) {
    fmt::print(stderr, "latency_bench: {}\n", started.error().message);
    return 1;
  }
  if (options.slices) return run_slices(engine, options);
  Json modes;
  for (const std::string& name : options.modes) {
    if (!warm_up(engine, options, name)) return 1;
    modes[name] = measured(engine, options, name, "");
    if (modes[name].is_null()) return 1;
  }
  const Json setup = {{"target", "C++, " + options.model}};
  fmt::print("{}\n", Json{{"setup", setup}, {"modes", modes}}.dump(1));
  return 0;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  inferneo::Options options;
  CLI::App app("Latency of the engine from C++");
  app.add_option("--model", options.model);
  app.add_option("--prompt", options.prompt);
  app.add_option("--modes", options.modes)->delimiter(',')->check(CLI::IsMember({"single", "batch", "concurrent"}));
  app.add_option("--num-runs", options.num_runs)->check(CLI::PositiveNumber);
  app.add_option("--warmup", options.warmup)->check(CLI::NonNegativeNumber);
  app.add_option("--batch-size", options.batch_size)->check(CLI::PositiveNumber);
  app.add_option("--concurrency", options.concurrency)->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", options.max_tokens)->check(CLI::PositiveNumber);
  app.add_option("--num-threads", options.num_threads)->check(CLI::NonNegativeNumber);
  app.add_option("--pause", options.pause)->check(CLI::NonNegativeNumber);
  app.add_option("--max-memory-gb", options.max_memory_gb)->check(CLI::PositiveNumber);
  app.add_flag("--no-stream", options.no_stream);
  app.add_flag("--slices", options.slices);
  app.add_flag("--in-callback", options.in_callback);
  CLI11_PARSE(app, argc, argv);
  return inferneo::run(options);
}
