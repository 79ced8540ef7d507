// Clients that do not behave, in front of the whole stack: some never read, some dribble, some come ten times too
// often, some leave. Each is dealt with by its limit, and the others never notice.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>

#include "raw_client.h"
#include "serving_stack.h"
#include "support/cpu_time.h"
#include "swarm.h"

namespace inferneo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string judge(const Question& question, const Client& client) {
  if (client.state() != Client::State::answered) return "not answered: " + client.trouble();
  return judge_whole(question, client.reader());
}

// Questions of clients that behave, to be asked beside the others.
std::vector<Question> plain_questions(size_t count, int max_tokens) {
  const Tokenizer& tokenizer = *story_tokenizer();
  std::vector<Question> questions;
  for (size_t i = 0; i < count; ++i) {
    questions.push_back(ask_completion(tokenizer, prompt_of(i, 5 + i % 50, tokenizer.vocab_size()), max_tokens));
  }
  return questions;
}

TEST(ChaosClients, ThoseThatNeverReadAreCancelledAtTheirByteCap) {
  constexpr size_t kSilent = 200;
  constexpr int kEndless = 60'000;
  StackOptions options;
  options.script.max_position = 64 * 1024;
  options.core.max_num_seqs = 256;
  options.script.check_contract = false;  // long contexts: it looks at all of them in every step
  options.server.limits.stream_bytes = 16 * 1024;
  options.server.limits.write_timeout = seconds(60);  // the cap acts, not the clock
  ServingStack stack(std::move(options));
  Swarm swarm(stack.port());
  const std::vector<Question> questions = plain_questions(20, 100);
  for (const Question& question : questions) swarm.add({question.request, {}});
  const auto prompt = prompt_of(1000, 10, stack.tokenizer().vocab_size());
  const std::string endless = ask_completion(stack.tokenizer(), prompt, kEndless).request;
  for (size_t i = 0; i < kSilent; ++i) swarm.add({endless, {}, false});
  EXPECT_TRUE(swarm.run_to_the_end(seconds(60)));
  for (size_t i = 0; i < questions.size(); ++i) EXPECT_EQ(judge(questions[i], *swarm.clients()[i]), "");
  // Their connections are ended with their requests, although the clients are still there.
  EXPECT_TRUE(swarm.run_until([&] { return stack.idle(); }, seconds(30)));
  EXPECT_LT(stack.core().stats().generation_tokens, kSilent * kEndless / 2) << "cancelled long before their ends";
  stack.expect_idle();
}

TEST(ChaosClients, ASlowReaderIsNoSilentOne) {
  StackOptions options;
  options.server.limits.write_timeout = milliseconds(400 * static_cast<int>(kSlowdown));
  options.server.limits.stream_bytes = 8 * 1024 * 1024;
  ServingStack stack(std::move(options));
  // A large answer in one piece, read in small ones: the whole takes longer than a write may stand still.
  nlohmann::json fields = {{"logprobs", 20}, {"return_tokens_as_token_ids", true}, {"n", 2}};
  const auto prompt = prompt_of(1, 10, stack.tokenizer().vocab_size());
  const Question question = ask_completion(stack.tokenizer(), prompt, 3000, fields);
  std::string request = question.request;
  const size_t at = request.find(R"("stream":true)");
  ASSERT_NE(at, std::string::npos);
  request.replace(at, 13, R"("stream":null)");
  RawClient client(stack.port());
  const int bytes = 128 * 1024;
  setsockopt(client.fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  ASSERT_TRUE(client.send(request));
  StreamReader reader;
  std::array<char, 65536> buffer;
  const TimePoint deadline = std::chrono::steady_clock::now() + seconds(60);
  while (!reader.is_complete() && reader.breach().empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(10 * static_cast<int>(kSlowdown)));
    const ssize_t n = recv(client.fd(), buffer.data(), buffer.size(), 0);
    ASSERT_GT(n, 0) << "the server gave the reader up";
    reader.feed(std::string_view(buffer.data(), static_cast<size_t>(n)));
  }
  EXPECT_EQ(reader.breach(), "");
  ASSERT_TRUE(reader.is_complete());
  EXPECT_EQ(nlohmann::json::parse(reader.body())["choices"][0]["text"], question.text);
}

TEST(ChaosClients, DribblersMeetTheirTimeLimits) {
  StackOptions options;
  options.server.limits.header_timeout = milliseconds(300);
  options.server.limits.body_timeout = milliseconds(300);
  options.server.limits.idle_timeout = milliseconds(300);
  options.script.step_cost = milliseconds(5);
  ServingStack stack(std::move(options));
  Swarm swarm(stack.port());
  const std::vector<Question> questions = plain_questions(20, 100);
  for (const Question& question : questions) swarm.add({question.request, {}});
  // A third sends a head byte by byte, a third a body, a third nothing at all.
  constexpr size_t kDribblers = 90;
  const std::string body = R"({"prompt": "Once upon a time", "max_tokens": 4})";
  const std::string whole = http_request("POST", "/v1/completions", body);
  std::vector<RawClient> dribblers;
  std::vector<size_t> sent;
  for (size_t i = 0; i < kDribblers; ++i) {
    dribblers.emplace_back(stack.port());
    sent.push_back(i % 3 == 1 ? whole.find("\r\n\r\n") + 4 : 0);
    EXPECT_TRUE(dribblers[i].send(whole.substr(0, sent[i])));
  }
  for (int tick = 0; tick < 15; ++tick) {  // at most 15 bytes each, over 600 ms
    for (size_t i = 0; i < kDribblers; ++i) {
      if (i % 3 != 2) dribblers[i].send(whole.substr(sent[i]++, 1));  // may be refused: that is the point
    }
    swarm.run_until([] { return false; }, milliseconds(40));
  }
  EXPECT_TRUE(swarm.run_to_the_end(seconds(60)));
  for (size_t i = 0; i < questions.size(); ++i) EXPECT_EQ(judge(questions[i], *swarm.clients()[i]), "");
  for (size_t i = 0; i < kDribblers; ++i) {
    if (i % 3 == 2) {
      EXPECT_TRUE(dribblers[i].wait_closed());
    } else {
      EXPECT_TRUE(dribblers[i].read_until("408 Request Timeout")) << i;
    }
    dribblers[i].close();
  }
}

// Requests per second that are answered in full while `offered` come at a steady rate; 429 for the others.
struct Load {
  size_t answered = 0;
  size_t refused = 0;
  double answered_per_second = 0.0;
};

Load offer(ServingStack& stack, double per_second, Duration length) {
  Swarm swarm(stack.port());
  const std::vector<Question> questions = plain_questions(50, 8);
  const TimePoint start = std::chrono::steady_clock::now();
  const TimePoint end = start + length;
  const auto in_time = [&] { return std::chrono::steady_clock::now() < end; };
  while (in_time()) {
    const double due = per_second * to_seconds(std::chrono::steady_clock::now() - start);
    while (static_cast<double>(swarm.clients().size()) < due) {
      swarm.add({questions[swarm.clients().size() % questions.size()].request, {}});
    }
    swarm.poll(milliseconds(2));
  }
  EXPECT_TRUE(swarm.run_to_the_end(seconds(60)));
  Load load;
  size_t in_window = 0;
  for (size_t i = 0; i < swarm.clients().size(); ++i) {
    const Client& client = *swarm.clients()[i];
    if (client.reader().status() == 429) {
      ++load.refused;
      EXPECT_EQ(client.reader().error_code(), "queue_full");
      EXPECT_NE(client.reader().head().find("\r\nretry-after: "), std::string::npos);
      continue;
    }
    EXPECT_EQ(judge(questions[i % questions.size()], client), "");
    ++load.answered;
    if (client.ended() < end) ++in_window;
  }
  load.answered_per_second = static_cast<double>(in_window) / to_seconds(length);
  return load;
}

TEST(ChaosClients, TenTimesTheLoadIsRefusedAndGoodputStays) {
  StackOptions options;
  options.script.step_cost = milliseconds(10);
  options.core.max_num_seqs = 8;
  options.core.max_queued_requests = 16;
  ServingStack stack(std::move(options));
  // Eight sequences of eight steps of 10 ms are 100 requests a second at the very most.
  constexpr double kCapacity = 100.0;
  const Load peak = offer(stack, kCapacity, milliseconds(1500));
  const Load flood = offer(stack, 10 * kCapacity, milliseconds(1500));
  fmt::print("offered {}/s: {:.0f} answered a second, {} refused; offered {}/s: {:.0f} answered a second, {} refused\n",
             kCapacity, peak.answered_per_second, peak.refused, 10 * kCapacity, flood.answered_per_second,
             flood.refused);
  EXPECT_GT(flood.refused, flood.answered) << "most of it cannot be served";
  EXPECT_GE(flood.answered_per_second, (kSlowdown > 1.0 ? 0.5 : 0.9) * peak.answered_per_second);
}

// One client leaves while its request waits, is read, is answered, or when its last token is due; the engine is moved
// step by step, so that "within a step" can be counted.
struct Departure {
  const char* name;
  size_t prompt_length;
  int max_tokens;
  int steps_before;
  int running_before;  // sequences, with the four neighbours
};

void PrintTo(const Departure& departure, std::ostream* out) { *out << departure.name; }

class ChaosDeparture : public ::testing::TestWithParam<Departure> {};

TEST_P(ChaosDeparture, FreesItsBlocksWithinAStep) {
  constexpr int kNeighbours = 4;
  const Departure& departure = GetParam();
  Brake brake;
  StackOptions options;
  options.script.step_cost = Duration(1);
  options.script.sleep = [&brake](Duration) { brake.pass({}); };
  options.core.max_num_seqs = departure.running_before;
  options.core.max_num_batched_tokens = 64;
  options.core.max_prefill_tokens_beside_decode = 48;
  ServingStack stack(std::move(options));
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const uint64_t before = stack.runner().num_steps();
      brake.let_pass(1);
      ASSERT_TRUE(eventually([&] { return stack.runner().num_steps() > before && brake.num_waiting() == 1; }));
    }
  };

  brake.hold();
  Swarm swarm(stack.port());
  const std::vector<Question> questions = plain_questions(kNeighbours, 100);
  for (const Question& question : questions) swarm.add({question.request, {}});
  ASSERT_TRUE(swarm.run_until([&] { return swarm.num_asked() == kNeighbours; }, seconds(20)));
  for (int i = 0; i < 40 && stack.core().stats().running < kNeighbours; ++i) steps(1);
  steps(4);  // short prompts: by now all four decode
  ASSERT_EQ(stack.core().stats().running, kNeighbours);
  const auto prompt = prompt_of(77, departure.prompt_length, stack.tokenizer().vocab_size());
  const Question question = ask_completion(stack.tokenizer(), prompt, departure.max_tokens);
  RawClient leaver(stack.port());
  ASSERT_TRUE(leaver.send(question.request));
  ASSERT_TRUE(eventually([&] { return stack.core().stats().waiting == 1; }));
  steps(departure.steps_before + 1);
  ASSERT_EQ(stack.core().stats().running, departure.running_before);
  const double usage_with = stack.core().stats().kv_usage;

  leaver.close(true);
  ASSERT_TRUE(eventually([&] { return stack.server().num_connections() == kNeighbours; }));
  steps(2);  // the one that was under way, and the first that knows; its numbers are published
  const EngineStats after = stack.core().stats();
  EXPECT_EQ(after.running, kNeighbours);
  EXPECT_EQ(after.waiting, 0);
  EXPECT_TRUE(departure.running_before == kNeighbours || after.kv_usage < usage_with);
  brake.release();
  EXPECT_TRUE(swarm.run_to_the_end(seconds(60)));
  for (size_t i = 0; i < questions.size(); ++i) EXPECT_EQ(judge(questions[i], *swarm.clients()[i]), "");
}

INSTANTIATE_TEST_SUITE_P(Moments, ChaosDeparture,
                         ::testing::Values(Departure{"queued", 40, 20, 1, 4}, Departure{"in_prefill", 600, 20, 3, 5},
                                           Departure{"in_decode", 40, 100, 10, 5},
                                           Departure{"at_the_last_token", 40, 8, 7, 5}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace inferneo::testing
