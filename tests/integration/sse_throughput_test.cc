// What streaming costs: events per second and CPU time per token of each kind of thread, at 256 streams. Prints its
// numbers; the bounds only catch a collapse.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "serving_stack.h"
#include "support/cpu_time.h"
#include "swarm.h"

namespace inferneo::testing {
namespace {

constexpr size_t kStreams = 256;

// Seconds that the threads of this process have run, by their names; the clients are the main thread.
std::map<std::string, double> cpu_by_thread() {
  std::map<std::string, double> seconds;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    uint64_t nanoseconds = 0;
    std::ifstream(entry.path() / "schedstat") >> nanoseconds;
    if (entry.path().filename() == std::to_string(getpid())) name = "clients";
    seconds[name] += 1e-9 * static_cast<double>(nanoseconds);
  }
  return seconds;
}

struct Measured {
  double seconds = 0.0;
  double tokens = 0.0;
  double events = 0.0;
  std::map<std::string, double> cpu;  // seconds
};

// Every stream is asked for and held first, so that only streaming is measured.
Measured measure(Duration step_cost, int tokens_each) {
  Brake brake;
  StackOptions options;
  options.script.check_contract = false;
  options.script.step_cost = std::max(step_cost, Duration(1));
  options.script.sleep = [&](Duration cost) { brake.pass(cost); };
  options.core.max_num_seqs = kStreams;
  options.core.enable_prefix_caching = false;
  options.server.io_threads = 1;
  options.server.limits.stream_bytes = size_t{16} << 20;
  ServingStack stack(std::move(options));
  brake.hold();
  Swarm swarm(stack.port());
  for (size_t i = 0; i < kStreams; ++i) {
    const auto prompt = prompt_of(i, 8, stack.tokenizer().vocab_size());
    ClientPlan plan;
    plan.request = ask_completion(stack.tokenizer(), prompt, tokens_each).request;
    plan.skips_json = true;
    swarm.add(std::move(plan));
  }
  EXPECT_TRUE(swarm.run_until([&] { return swarm.num_asked() == kStreams; }, std::chrono::seconds(30)));
  swarm.run_until([] { return false; }, std::chrono::milliseconds(300));
  const auto before = cpu_by_thread();
  const TimePoint start = std::chrono::steady_clock::now();
  brake.release();
  EXPECT_TRUE(swarm.run_to_the_end(std::chrono::minutes(3)));
  Measured measured;
  measured.seconds = to_seconds(std::chrono::steady_clock::now() - start);
  measured.cpu = cpu_by_thread();
  for (const auto& [name, seconds] : before) measured.cpu[name] -= seconds;
  for (const auto& client : swarm.clients()) {
    measured.events += static_cast<double>(client->reader().num_events());
    EXPECT_EQ(client->reader().num_done(), 1);
  }
  measured.tokens = static_cast<double>(kStreams) * tokens_each;
  return measured;
}

void print(const char* title, const Measured& m) {
  fmt::print("{}: {} streams, {:.0f} tokens as {:.0f} events in {:.2f} s: {:.0f} tokens/s, {:.0f} events/s\n", title,
             kStreams, m.tokens, m.events, m.seconds, m.tokens / m.seconds, m.events / m.seconds);
  double server = 0.0;
  for (const auto& [name, seconds] : m.cpu) {
    if (seconds * 1e6 / m.tokens < 0.01) continue;
    fmt::print("  {:<10} {:6.2f} us of CPU per token, {:6.2f} per event, {:3.0f} % of a core\n", name,
               1e6 * seconds / m.tokens, 1e6 * seconds / m.events, 100.0 * seconds / m.seconds);
    if (name != "clients") server += seconds;
  }
  fmt::print("  server     {:6.2f} us of CPU per token; an io thread can carry {:.0f} events/s\n",
             1e6 * server / m.tokens, m.events / m.cpu.at("http-io"));
}

TEST(SseThroughput, CostOfATokenOnItsWay) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  const bool whole = scale != nullptr && std::atof(scale) >= 1.0;
  // Every token an event of its own: the engine is slower than the way.
  const Measured paced = measure(std::chrono::milliseconds(25), whole ? 400 : 40);
  print("paced", paced);
  // The engine as fast as it can: what has gathered leaves in one event.
  const Measured flat_out = measure({}, whole ? 2000 : 100);
  print("flat out", flat_out);
  EXPECT_GT(paced.events, 0.5 * paced.tokens);
  EXPECT_GT(flat_out.tokens / flat_out.seconds, 5000.0 / kSlowdown);
}

}  // namespace
}  // namespace inferneo::testing
