// What routing and experiments cost one request: from its facts to its route, its outcome recorded.
//   traffic_bench [RULES [TESTS [REPETITIONS]]]     default 1000 20 20000
// Prompts of 1 KiB. Of the rules six tenths look for a text, two for a regular expression, two compare numbers; only
// the last matches, and sends to the last of the tests. Processor time of this thread, allocations per request.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "serving/traffic.h"
#include "support/counting_new.h"

namespace inferneo {
namespace {

class AnyModels final : public TrafficModels {
 public:
  std::optional<std::string> resolve(std::string_view name) const override {
    return std::string(name.empty() ? "m" : name) + ":1";
  }
  std::optional<std::string> alias_target(std::string_view) const override { return std::nullopt; }
  std::vector<std::string> names() const override { return {}; }
  ChainLink link(std::string_view) const override { return {}; }
  CandidateView candidate(std::string_view) const override { return {}; }
};

double cpu_micros() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

std::string prompt_of(uint64_t seed) {
  constexpr std::string_view kWords[] = {"the", "model", "request", "paper", "of",   "a",     "to",   "light",
                                         "in",  "stone", "write",   "house", "with", "green", "city", "water"};
  std::mt19937_64 random(seed);
  std::string prompt;
  while (prompt.size() < 1024) {
    prompt += kWords[random() % std::size(kWords)];
    prompt += random() % 12 == 0 ? ".\n" : " ";
  }
  prompt.resize(1018);
  return prompt + "finish";
}

std::string condition_of(size_t i) {
  if (i % 10 < 6)
    return fmt::format("prompt {} 'subject {} of {}'", i % 3 == 0 ? "icontains" : "contains", i, i * 7919);
  if (i % 10 < 8) return fmt::format("prompt matches /\\bterm{}\\s+(is|was)\\b/", i);
  return fmt::format("prompt_length > {}", 100'000 + i);
}

void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "{}\n", status.error().message);
  std::exit(1);
}

void fill(Traffic& traffic, size_t num_rules, size_t num_tests) {
  for (size_t i = 0; i < num_tests; ++i) {
    const std::string name = fmt::format("test{}", i);
    require(traffic.add_test({.name = name, .model_a = fmt::format("a{}", i), .model_b = fmt::format("b{}", i)}));
    require(traffic.start_test(name));
  }
  std::vector<RoutingRule> rules;
  for (size_t i = 0; i < num_rules; ++i) {
    rules.push_back({.name = fmt::format("rule{}", i),
                     .condition = condition_of(i),
                     .model_name = "m",
                     .created = static_cast<int64_t>(i + 1)});
  }
  rules.back().condition = "prompt ends with 'finish'";
  rules.back().model_name.clear();
  rules.back().ab_test = fmt::format("test{}", num_tests - 1);
  require(traffic.add_rules(std::move(rules)));
}

int run(size_t num_rules, size_t num_tests, size_t repetitions) {
  AnyModels models;
  const SteadyClock clock;
  Traffic traffic(models, clock);
  fill(traffic, num_rules, num_tests);
  std::vector<std::string> prompts;
  for (uint64_t i = 0; i < 64; ++i) prompts.push_back(prompt_of(i));
  std::vector<double> micros;
  uint64_t allocated = 0;
  for (size_t i = 0; i < repetitions + 256; ++i) {
    const RequestFacts facts{.prompt = prompts[i % prompts.size()], .max_tokens = 256};
    const std::string user = fmt::format("user-{}", i % 5000);
    const uint64_t before = allocations_of_this_thread();
    const double start = cpu_micros();
    const TrafficRoute route = traffic.route(facts, {.user = user});
    traffic.record(route, {.completion_tokens = 10, .time_to_first_token = 0.1, .end_to_end = 0.5});
    const double end = cpu_micros();
    if (route.test == nullptr) require(make_error(ErrorCode::internal, "the last rule did not match"));
    if (i < 256) continue;  // caches and lazy automata fill
    allocated += allocations_of_this_thread() - before;
    micros.push_back(end - start);
  }
  std::sort(micros.begin(), micros.end());
  fmt::print("{} rules, {} tests: median {:.1f}  p99 {:.1f}  p99.9 {:.1f} us, {:.2f} allocations a request\n",
             num_rules, num_tests, micros[micros.size() / 2], micros[micros.size() * 99 / 100],
             micros[micros.size() * 999 / 1000], static_cast<double>(allocated) / static_cast<double>(repetitions));
  return 0;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  const auto number = [&](int at, size_t otherwise) {
    return argc > at ? std::strtoul(argv[at], nullptr, 10) : otherwise;
  };
  return inferneo::run(number(1, 1000), number(2, 20), number(3, 20'000));
}
