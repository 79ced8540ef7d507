// How long a decision of the rules takes, and what it allocates.
//   routing_bench [RULES [REPETITIONS]]     default 1000 20000
// Of the rules six tenths look for a text, two for a regular expression, two compare numbers; only the last matches.
// Each line is a set of rules over prompts of 1 KiB: processor time of one decision, allocations
// per decision. Then what a look at the set in force costs, beside a mutex and std::atomic<std::shared_ptr>.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/snapshot_holder.h"
#include "routing/rule_set.h"
#include "support/counting_new.h"

namespace inferneo {
namespace {

using Clock = std::chrono::steady_clock;

// Of this thread alone: what others do to the machine does not count. Reading it takes about 0.2 us.
double cpu_micros() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

constexpr std::string_view kWords[] = {"the",   "model",  "request", "paper",  "river",  "of",    "a",
                                       "to",    "in",     "tree",    "light",  "answer", "quick", "stone",
                                       "write", "house",  "about",   "please", "with",   "green", "story",
                                       "table", "number", "would",   "city",   "small",  "water"};

std::string prompt_of(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string prompt;
  while (prompt.size() < bytes) {
    prompt += kWords[random() % std::size(kWords)];
    prompt += random() % 12 == 0 ? ".\n" : " ";
  }
  prompt.resize(bytes);
  return prompt;
}

enum class Regexes { words, common, unfiltered };

// Ten letters, each of one half of the alphabet: another sequence for each number.
std::string classes_of(size_t i) {
  std::string classes;
  for (int bit = 0; bit < 10; ++bit) classes += (i >> bit & 1) != 0 ? "[a-m]" : "[n-z]";
  return classes;
}

std::string condition_of(size_t i, Regexes kind) {
  const size_t kind_of_rule = i % 10;
  if (kind_of_rule < 6)
    return fmt::format("prompt {} 'subject {} of {}'", i % 3 == 0 ? "icontains" : "contains", i, i * 7919);
  if (kind_of_rule < 8) {
    if (kind == Regexes::words)
      return fmt::format("prompt matches /\\bterm{}\\s+(is|was)\\b/{}", i, i % 4 == 0 ? "i" : "");
    // Nothing but "the" has to be there, and every prompt has it.
    if (kind == Regexes::common) return fmt::format("prompt matches /\\bthe\\s+{}\\d/", classes_of(i));
    return fmt::format("prompt matches /{}\\d/", classes_of(i));
  }
  return i % 2 == 0 ? fmt::format("prompt_length > {}", 100'000 + i)
                    : fmt::format("turns > {} and max_tokens < {}", i, i);
}

std::shared_ptr<const RuleSet> rules_of(size_t count, Regexes kind, HitCounters& counters) {
  std::vector<RoutingRule> rules;
  for (size_t i = 0; i < count; ++i) {
    rules.push_back({.name = fmt::format("rule{}", i),
                     .condition = condition_of(i, kind),
                     .model_name = "m",
                     .created = static_cast<int64_t>(i)});
  }
  rules.back().condition = "prompt contains 'the'";
  auto set = RuleSet::build(std::move(rules), {}, &counters);
  if (!set.ok()) {
    fmt::print(stderr, "{}\n", set.error().message);
    std::exit(1);
  }
  return *set;
}

void measure(const char* name, size_t count, Regexes kind, size_t repetitions, std::string_view extra) {
  HitCounters counters;
  const auto built_at = Clock::now();
  const auto set = rules_of(count, kind, counters);
  const double build_ms = std::chrono::duration<double, std::milli>(Clock::now() - built_at).count();
  std::vector<std::string> prompts;
  for (uint64_t i = 0; i < 64; ++i) {
    prompts.push_back(prompt_of(1024 - extra.size(), i));
    prompts.back() += extra;
  }
  RoutingScratch scratch;
  std::vector<double> micros;
  micros.reserve(repetitions);
  uint64_t allocated = 0;
  for (size_t i = 0; i < repetitions + 256; ++i) {
    const RequestFacts facts{.prompt = prompts[i % prompts.size()], .turns = 1, .max_tokens = 256};
    const uint64_t before = allocations_of_this_thread();
    const double start = cpu_micros();
    const RoutingDecision decision = set->decide(facts, scratch);
    const double end = cpu_micros();
    if (decision.rule != set->rule(count - 1).name) {
      fmt::print(stderr, "rule '{}' matched\n", decision.rule);
      std::exit(1);
    }
    if (i < 256) continue;  // caches and lazy automata fill
    allocated += allocations_of_this_thread() - before;
    micros.push_back(end - start);
  }
  std::sort(micros.begin(), micros.end());
  const TextIndex& index = set->program().prompt_index();
  fmt::print("{:<44} min {:6.1f}  median {:6.1f}  p99 {:6.1f}  p99.9 {:7.1f} us  {:.3f} allocations  build {:.0f} ms\n",
             name, micros.front(), micros[micros.size() / 2], micros[micros.size() * 99 / 100],
             micros[micros.size() * 999 / 1000], static_cast<double>(allocated) / static_cast<double>(repetitions),
             build_ms);
  fmt::print("{:<44} {} literals, {} regexes ({} behind literals), automata {} KiB\n", "", index.num_literals(),
             index.num_regexes(), index.num_filtered(), index.memory_bytes() / 1024);
}

// Nanoseconds per look, with `threads` at it.
double look_time(int threads, const std::function<size_t()>& look) {
  constexpr int kLooks = 200'000;
  std::vector<std::thread> readers;
  std::atomic<size_t> sum{0};
  const auto start = Clock::now();
  for (int i = 0; i < threads; ++i) {
    readers.emplace_back([&] {
      size_t mine = 0;
      for (int k = 0; k < kLooks; ++k) mine += look();
      sum += mine;
    });
  }
  for (std::thread& reader : readers) reader.join();
  const double nanos = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  if (sum == 0) std::exit(1);
  return nanos / kLooks;
}

void measure_looks() {
  HitCounters counters;
  const auto set = rules_of(10, Regexes::words, counters);
  SnapshotHolder<RuleSet> holder(set);
  std::atomic<std::shared_ptr<const RuleSet>> atomic(set);
  std::mutex mutex;
  std::shared_ptr<const RuleSet> guarded = set;
  for (const int threads : {1, 2, 4}) {
    const double ours = look_time(threads, [&] { return holder.current()->size(); });
    const double standard = look_time(threads, [&] { return atomic.load()->size(); });
    const double locked = look_time(threads, [&] {
      std::shared_ptr<const RuleSet> mine;
      {
        const std::lock_guard lock(mutex);
        mine = guarded;
      }
      return mine->size();
    });
    fmt::print("look with {} threads: holder {:.0f} ns, atomic<shared_ptr> {:.0f} ns, mutex {:.0f} ns\n", threads, ours,
               standard, locked);
  }
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  using inferneo::Regexes;
  const size_t rules = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1000;
  const size_t repetitions = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20'000;
  inferneo::measure("regexes with a word of their own", rules, Regexes::words, repetitions, "the end");
  inferneo::measure("the same, prompts with a long s", rules, Regexes::words, repetitions, "the \xC5\xBF end");
  inferneo::measure("regexes whose word every prompt has", rules, Regexes::common, repetitions, "the end");
  inferneo::measure("regexes without a word", rules, Regexes::unfiltered, repetitions, "the end");
  inferneo::measure_looks();
  return 0;
}
