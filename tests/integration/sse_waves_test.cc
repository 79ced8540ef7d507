// Waves of clients that all stream at once, and of which three in ten leave at a moment of their own: while sending,
// queued, in prefill, in decode, at the last token; by an orderly close and by RST. Afterwards every law holds, and
// those who stayed have read exactly what an undisturbed engine says. INFERNEO_SOAK_SCALE scales clients and waves of
// the soak build (1: 2,000 clients at once, fifty waves).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "serving_stack.h"
#include "swarm.h"

namespace inferneo::testing {
namespace {

#ifdef INFERNEO_SOAK
constexpr size_t kClients = 2000;
constexpr int kWaves = 50;
#else
constexpr size_t kClients = 150;
constexpr int kWaves = 2;
#endif

double scale() {
#ifdef INFERNEO_SOAK
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return scale == nullptr ? 0.02 : std::atof(scale);
#else
  return 1.0;
#endif
}

struct Sums {
  size_t clients = 0;
  size_t left = 0;
  size_t left_unheard = 0;  // before a byte of the answer had come
  size_t finished = 0;
  size_t events = 0;
  size_t at_once = 0;
  size_t tokens = 0;
  size_t steps = 0;
  size_t preemptions = 0;
};

class Waves {
 public:
  Waves(uint64_t seed, int max_in_flight, Sums& sums)
      : random_(seed), stack_(options(brake_, max_in_flight)), sums_(sums) {}

  void run(size_t num_clients) {
    brake_.hold();  // nobody is answered before all have asked
    Swarm swarm(stack_.port());
    std::vector<Question> questions;
    for (size_t i = 0; i < num_clients; ++i) {
      questions.push_back(make_question());
      swarm.add({questions.back().request, make_leave(questions.back())});
    }
    ASSERT_TRUE(swarm.run_until([&] { return swarm.num_asked() == num_clients; }, kPatience))
        << swarm.num_asked() << " of " << num_clients << " have asked";
    const auto all = static_cast<int>(num_clients);
    ASSERT_TRUE(eventually([&] { return stack_.server().num_connections() == all; }));
    sums_.at_once = std::max(sums_.at_once, num_clients);
    swarm.start_leaving();
    swarm.run_until([] { return false; }, std::chrono::milliseconds(between(20, 60)));
    brake_.release();
    ASSERT_TRUE(swarm.run_to_the_end(kPatience)) << num_clients - swarm.num_over() << " clients wait for their end";
    judge(swarm, questions);
    stack_.expect_idle();
  }

  void end() {
    const EngineStats stats = stack_.core().stats();
    sums_.tokens += stats.generation_tokens;
    sums_.steps += stats.steps;
    sums_.preemptions += stats.preemptions;
    stack_.end();
  }

 private:
  static constexpr Duration kPatience = std::chrono::minutes(3);

  static StackOptions options(Brake& brake, int max_in_flight) {
    StackOptions o;
    o.script.groups = {{.block_size = 4, .window = 0}};
    o.script.max_in_flight = max_in_flight;
    o.script.step_cost = Duration(1);
    o.script.sleep = [&brake](Duration) { brake.pass({}); };
    o.core.max_num_seqs = 256;
    o.core.max_queued_requests = static_cast<int32_t>(2 * kClients);
    o.core.num_kv_blocks = {kClients > 1000 ? 2400 : 1200};  // fewer than a full house needs: some are preempted
    o.service.max_text_queue = 4 * kClients;
    return o;
  }

  int between(int low, int high) { return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1)); }
  bool chance(int percent) { return between(1, 100) <= percent; }

  Question make_question() {
    const Tokenizer& tokenizer = stack_.tokenizer();
    const int max_tokens = between(4, 48);
    nlohmann::json fields = nlohmann::json::object();
    if (chance(50)) fields["stream_options"] = {{"include_usage", true}};
    if (chance(5)) fields["n"] = 2;
    const auto ask = [&, prompt = make_prompt(), chat = chance(25)] {
      const auto beginning = std::span(prompt).first(std::min<size_t>(prompt.size(), 100));
      if (chat) return ask_chat(tokenizer, tokenizer.decode(beginning, true).value(), max_tokens, fields);
      if (chance(10)) {
        fields["logprobs"] = 1;
        fields["return_tokens_as_token_ids"] = true;
      }
      return ask_completion(tokenizer, prompt, max_tokens, fields);
    };
    Question question = ask();
    if (const std::string stop = stop_within(question.text); chance(10) && !stop.empty()) {
      fields["stop"] = stop;
      return ask_completion(tokenizer, question.prompt, max_tokens, fields);
    }
    return question;
  }

  // Some share a beginning with others, some take several steps to be read.
  std::vector<Token> make_prompt() {
    const int32_t vocab = stack_.tokenizer().vocab_size();
    const auto length = static_cast<size_t>(chance(15) ? between(300, 1200) : between(2, 60));
    std::vector<Token> prompt = prompt_of(random_(), length, vocab);
    if (!chance(40)) return prompt;
    std::vector<Token> shared = prompt_of(static_cast<uint64_t>(between(1, 4)), 80, vocab);
    shared.insert(shared.end(), prompt.begin(), prompt.end());
    return shared;
  }

  Leave make_leave(const Question& question) {
    Leave leave;
    if (!chance(35)) return leave;  // some of them have read everything before their moment comes
    leave.reset = chance(50);
    const int moment = between(1, 100);
    const auto last = std::max(2, static_cast<int>(question.text.size() / 8));
    if (moment <= 10) {
      leave.when = Leave::When::while_sending;
      leave.after = std::chrono::milliseconds(between(0, 100));
    } else if (moment <= 50) {  // in the queue, in prefill or in decode, as it comes
      leave.when = Leave::When::after;
      leave.after = std::chrono::microseconds(between(0, chance(50) ? 60'000 : 1'500'000));
    } else if (moment <= 80) {
      leave.when = Leave::When::at_event;
      leave.event = static_cast<size_t>(between(1, last));
    } else {
      leave.when = Leave::When::at_end;
    }
    return leave;
  }

  void judge(const Swarm& swarm, const std::vector<Question>& questions) {
    for (size_t i = 0; i < questions.size(); ++i) {
      const Client& client = *swarm.clients()[i];
      const StreamReader& reader = client.reader();
      ++sums_.clients;
      sums_.events += reader.num_events();
      if (client.state() == Client::State::left) {
        ++sums_.left;
        sums_.left_unheard += reader.has_head() ? 0 : 1;
        EXPECT_EQ(judge_part(questions[i], reader), "") << "client " << i;
        continue;
      }
      EXPECT_EQ(client.state(), Client::State::answered) << "client " << i << ": " << client.trouble();
      const std::string wrong = judge_whole(questions[i], reader);
      EXPECT_EQ(wrong, "") << "client " << i;
      sums_.finished += wrong.empty() ? 1 : 0;
    }
  }

  std::mt19937_64 random_;
  Brake brake_;
  ServingStack stack_;
  Sums& sums_;
};

TEST(SseWaves, EveryLawHoldsWhoeverLeaves) {
  const auto num_clients = std::max<size_t>(100, static_cast<size_t>(static_cast<double>(kClients) * scale()));
  const int waves_each = std::max(1, static_cast<int>(kWaves / 2 * scale()));
  const std::string no_room = Swarm::make_room_for(num_clients);
  ASSERT_TRUE(no_room.empty()) << no_room;
  const TimePoint start = std::chrono::steady_clock::now();
  Sums sums;
  for (const int max_in_flight : {1, 2}) {  // one engine that preempts, one that runs ahead
    Waves waves(20'000 + static_cast<uint64_t>(max_in_flight), max_in_flight, sums);
    for (int wave = 0; wave < waves_each; ++wave) {
      SCOPED_TRACE(::testing::Message() << "wave " << wave << ", " << max_in_flight << " steps in flight");
      waves.run(num_clients);
      ASSERT_FALSE(::testing::Test::HasFailure());
    }
    waves.end();
  }
  const double seconds = to_seconds(std::chrono::steady_clock::now() - start);
  EXPECT_GT(sums.left, sums.clients / 5);
  EXPECT_TRUE(num_clients < kClients || sums.preemptions > 0);
  ASSERT_FALSE(::testing::Test::HasFailure());
  fmt::print(
      "{} clients ({} at once, {} waves), {} left early ({} before a byte of the answer), {} read to the end; {} "
      "events, {} tokens, {} steps, {} preemptions; {:.1f} s, {:.0f} events/s; all blocks back, no descriptor lost\n",
      sums.clients, sums.at_once, 2 * waves_each, sums.left, sums.left_unheard, sums.finished, sums.events, sums.tokens,
      sums.steps, sums.preemptions, seconds, static_cast<double>(sums.events) / seconds);
}

}  // namespace
}  // namespace inferneo::testing
