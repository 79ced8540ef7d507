// Faults inside the stack, seen over HTTP: one request's fault at each stage is its own, a runner that fails ends every
// stream properly, an engine that hangs is told by /ready.
#include <gtest/gtest.h>

#include <algorithm>

#include "raw_client.h"
#include "serving_stack.h"
#include "swarm.h"

namespace inferneo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Json = nlohmann::json;

// Prompts that begin with one of these tokens (or texts that hold its name) meet a fault at that stage.
enum Fault : Token { kNanInPrefill = 3, kNanInDecode, kNanAtTheLastToken, kDecoder, kDecoderEnd };
constexpr Token kPoison = 1500;  // the decoder's faults come with these tokens
constexpr Token kPoisonAtTheEnd = 1501;
constexpr int kMaxTokens = 12;

// A grammar whose matcher fails where it is told to.
class FaultyGrammar final : public GrammarCompiled {
 public:
  explicit FaultyGrammar(std::string stage) : stage_(std::move(stage)) {}
  Result<std::unique_ptr<GrammarMatcher>> new_matcher() const override {
    if (stage_ == "matcher") return fault();
    return std::unique_ptr<GrammarMatcher>(new Matcher(stage_));
  }

 private:
  static Error fault() { return make_error(ErrorCode::internal, "planted fault"); }
  class Matcher final : public GrammarMatcher {
   public:
    explicit Matcher(const std::string& stage) : stage_(stage) {}
    Status fill_mask(std::span<uint32_t> mask) override {
      if (stage_ == "mask" && num_accepted_ == 3) return fault();
      for (uint32_t& word : mask) word = ~0U;
      return ok_status();
    }
    Status accept(Token) override {
      if (stage_ == "accept" && num_accepted_ == 3) return fault();
      ++num_accepted_;
      return ok_status();
    }
    Status rollback(int) override { return ok_status(); }
    bool is_finished() const override { return false; }

   private:
    const std::string& stage_;
    int num_accepted_ = 0;
  };
  std::string stage_;
};

// The real tokenizer, with faults at its own stages.
class FaultyTokenizer final : public Tokenizer {
 public:
  explicit FaultyTokenizer(std::shared_ptr<const Tokenizer> real) : real_(std::move(real)) {}
  Result<std::vector<Token>> encode(std::string_view text, bool add) const override {
    if (text == "fault") return fault();
    return real_->encode(text, add);
  }
  Result<std::vector<Token>> encode_with_control(std::string_view text, bool add) const override {
    return real_->encode_with_control(text, add);
  }
  Result<std::string> decode(std::span<const Token> tokens, bool skip) const override {
    return real_->decode(tokens, skip);
  }
  std::unique_ptr<StreamDecoder> new_stream(bool skip) const override {
    return std::make_unique<Stream>(real_->new_stream(skip));
  }
  int32_t vocab_size() const override { return real_->vocab_size(); }
  std::optional<Token> token_to_id(std::string_view token) const override { return real_->token_to_id(token); }
  std::string token_bytes(Token token) const override { return real_->token_bytes(token); }
  bool is_special(Token token) const override { return real_->is_special(token); }
  bool has_chat_template() const override { return true; }
  std::string chat_template_source() const override { return real_->chat_template_source(); }
  Result<std::vector<Token>> apply_chat_template(const ChatInput& chat) const override {
    if (chat.messages.find("fault") != std::string::npos) return fault();
    return real_->apply_chat_template(chat);
  }
  Result<std::string> render_chat_template(const ChatInput& chat) const override {
    return real_->render_chat_template(chat);
  }
  Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec& grammar, int32_t,
                                                                 std::span<const Token>) const override {
    if (grammar.text == "compile") return fault();
    return std::shared_ptr<const GrammarCompiled>(std::make_shared<FaultyGrammar>(grammar.text));
  }

 private:
  static Error fault() { return make_error(ErrorCode::internal, "planted fault"); }
  struct Stream final : StreamDecoder {
    explicit Stream(std::unique_ptr<StreamDecoder> real_stream) : real(std::move(real_stream)) {}
    Result<std::string> push(Token token) override {
      if (token == kPoison) return fault();
      fails_at_the_end |= token == kPoisonAtTheEnd;
      return real->push(token);
    }
    Result<std::string> finish() override {
      if (fails_at_the_end) return fault();
      return real->finish();
    }
    std::unique_ptr<StreamDecoder> real;
    bool fails_at_the_end = false;
  };
  std::shared_ptr<const Tokenizer> real_;
};

StackOptions faulty_options() {
  StackOptions options;
  options.tokenizer = std::make_shared<FaultyTokenizer>(story_tokenizer());
  options.script.step_cost = milliseconds(1);
  options.script.numeric_error = [](const SequenceStep& step) {
    const Token first = step.sampling.prompt.front();
    const size_t outputs = step.sampling.output.size();
    return (first == kNanInPrefill && outputs == 0) || (first == kNanInDecode && outputs == 5) ||
           (first == kNanAtTheLastToken && outputs == kMaxTokens - 1);
  };
  options.script.next_token = [](const ScriptedToken& at) {
    if (at.prompt.front() == kDecoder && at.output_index == 5) return kPoison;
    if (at.prompt.front() == kDecoderEnd && at.output_index == 5) return kPoisonAtTheEnd;
    if (at.prompt.front() <= kDecoderEnd) return Token{40 + at.output_index};  // each meets its own fault only
    return ScriptedRunner::default_token(at);
  };
  return options;
}

struct FaultyRequest {
  std::string stage;
  std::string request;
  int status;        // 200: the fault comes as an event within the stream
  std::string code;  // stable
};

std::vector<FaultyRequest> faulty_requests() {
  const auto completion = [](Json prompt, Json fields = Json::object()) {
    fields["prompt"] = std::move(prompt);
    fields["stream"] = true;
    if (!fields.contains("max_tokens")) fields["max_tokens"] = kMaxTokens;
    return http_request("POST", "/v1/completions", fields.dump());
  };
  const auto marked = [](Token fault) { return Json::array({fault, 50, 60, 70}); };
  const auto grammar = [&](const char* stage) { return completion("Once", {{"guided_regex", stage}}); };
  const Json chat = {{"stream", true}, {"messages", Json::array({{{"role", "user"}, {"content", "fault"}}})}};
  return {
      {"JSON", http_request("POST", "/v1/completions", R"({"prompt": "x", )"), 400, "invalid_argument"},
      {"field", completion("x", {{"temperature", 9}}), 400, "invalid_argument"},
      {"model", completion("x", {{"model", "nobody"}}), 404, "not_found"},
      {"template", http_request("POST", "/v1/chat/completions", chat.dump()), 500, "internal_error"},
      {"tokenizing", completion("fault"), 500, "internal_error"},
      {"compiling a grammar", grammar("compile"), 500, "internal_error"},
      {"admission: vocabulary", completion(Json::array({1 << 30})), 400, "invalid_argument"},
      {"admission: length", completion("x", {{"max_tokens", 1 << 20}}), 400, "context_length_exceeded"},
      {"a matcher's beginning", grammar("matcher"), 500, "internal_error"},
      {"NaN in prefill", completion(marked(kNanInPrefill)), 500, "numeric_error"},
      {"NaN in decode", completion(marked(kNanInDecode)), 200, "numeric_error"},
      {"NaN at the last token", completion(marked(kNanAtTheLastToken)), 200, "numeric_error"},
      {"filling a mask", grammar("mask"), 200, "internal_error"},
      {"a matcher's refusal", grammar("accept"), 200, "internal_error"},
      {"detokenizing", completion(marked(kDecoder)), 200, "internal_error"},
      {"detokenizing the end", completion(marked(kDecoderEnd)), 200, "internal_error"},
  };
}

TEST(ChaosEngine, AFaultAtAnyStageIsOneRequestsOwn) {
  ServingStack stack(faulty_options());
  Swarm swarm(stack.port());
  std::vector<Question> neighbours;
  const std::vector<FaultyRequest> faulty = faulty_requests();
  for (size_t i = 0; i < 3 * faulty.size(); ++i) {
    const auto prompt = prompt_of(i, 20, stack.tokenizer().vocab_size());
    neighbours.push_back(ask_completion(stack.tokenizer(), prompt, 60));
    if (std::ranges::count(neighbours.back().tokens, kPoison) +
                std::ranges::count(neighbours.back().tokens, kPoisonAtTheEnd) >
            0 ||
        prompt.front() <= kDecoderEnd) {
      neighbours.pop_back();
    }
  }
  for (const Question& question : neighbours) swarm.add({question.request, {}});
  for (int round = 0; round < 3; ++round) {
    for (const FaultyRequest& request : faulty) swarm.add({request.request, {}});
    swarm.run_until([] { return false; }, milliseconds(10));
  }
  ASSERT_TRUE(swarm.run_to_the_end(seconds(60)));
  for (size_t i = 0; i < neighbours.size(); ++i) {
    EXPECT_EQ(judge_whole(neighbours[i], swarm.clients()[i]->reader()), "");
  }
  for (size_t i = 0; i < 3 * faulty.size(); ++i) {
    const FaultyRequest& request = faulty[i % faulty.size()];
    const StreamReader& answer = swarm.clients()[neighbours.size() + i]->reader();
    SCOPED_TRACE(request.stage);
    EXPECT_EQ(answer.breach(), "");
    EXPECT_TRUE(answer.is_complete());
    EXPECT_EQ(answer.status(), request.status);
    EXPECT_EQ(answer.error_code(), request.code);
    EXPECT_EQ(answer.num_done(), request.status == 200 ? 1 : 0);
  }
}

std::vector<Question> ask_many(ServingStack& stack, Swarm& swarm, size_t count, int max_tokens) {
  std::vector<Question> questions;
  for (size_t i = 0; i < count; ++i) {
    const auto prompt = prompt_of(i, 10, stack.tokenizer().vocab_size());
    questions.push_back(ask_completion(stack.tokenizer(), prompt, max_tokens));
    swarm.add({questions.back().request, {}});
  }
  return questions;
}

class ChaosRunner : public ::testing::TestWithParam<std::string> {};

TEST_P(ChaosRunner, ThatFailsEndsEveryStreamOnce) {
  StackOptions options;
  options.script.step_cost = milliseconds(2);
  std::optional<uint64_t>& at = GetParam() == "submit"    ? options.script.fail_submit_at
                                : GetParam() == "collect" ? options.script.fail_collect_at
                                                          : options.script.throw_at;
  at = 60;
  ServingStack stack(std::move(options));
  stack.expect_state_at_the_end(EngineState::failed);
  Swarm swarm(stack.port());
  const std::vector<Question> questions = ask_many(stack, swarm, 100, 1000);
  ASSERT_TRUE(swarm.run_to_the_end(seconds(60)));
  size_t in_stream = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    const StreamReader& answer = swarm.clients()[i]->reader();
    EXPECT_EQ(answer.breach(), "");
    EXPECT_TRUE(answer.is_complete());
    EXPECT_EQ(answer.error_code(), "internal_error");
    EXPECT_EQ(answer.num_done(), answer.status() == 200 ? 1 : 0);
    in_stream += answer.status() == 200 ? 1 : 0;
    for (const auto& [index, choice] : answer.choices()) {
      EXPECT_TRUE(questions[i].text.starts_with(choice.text)) << "what was said before was right";
    }
  }
  EXPECT_GT(in_stream, 0U);
  EXPECT_EQ(fetch(stack.port(), "GET", "/health")->status, 200);
  EXPECT_EQ(fetch(stack.port(), "GET", "/ready")->status, 503);
}

INSTANTIATE_TEST_SUITE_P(Ways, ChaosRunner, ::testing::Values("submit", "collect", "throw"),
                         [](const auto& test) { return test.param; });

TEST(ChaosEngine, AHangIsToldByReadyAndForgottenAfterwards) {
  StackOptions options;
  options.script.step_cost = milliseconds(2);
  options.script.hang_at = 30;
  options.service.stall_limit = milliseconds(300);
  ServingStack stack(std::move(options));
  const auto ready = [&] { return fetch(stack.port(), "GET", "/ready")->status; };
  EXPECT_EQ(ready(), 200);
  Swarm swarm(stack.port());
  const std::vector<Question> questions = ask_many(stack, swarm, 40, 50);
  const auto hangs = [&] { return stack.runner().num_steps() >= 30; };
  ASSERT_TRUE(swarm.run_until(hangs, seconds(30)));
  const TimePoint since = std::chrono::steady_clock::now();
  ASSERT_TRUE(eventually([&] { return ready() == 503; }));
  EXPECT_LT(std::chrono::steady_clock::now() - since, seconds(3));
  EXPECT_EQ(fetch(stack.port(), "GET", "/health")->status, 200);
  // Who leaves during the hang is not waited for, and whoever asks meanwhile is answered after it.
  RawClient leaver(stack.port());
  ASSERT_TRUE(leaver.send(questions[0].request));
  leaver.close(true);
  const Question& late = questions[1];
  const Client& latecomer = swarm.add({late.request, {}});
  swarm.run_until([&] { return latecomer.has_asked(); }, seconds(10));
  stack.runner().release_hang();
  ASSERT_TRUE(swarm.run_to_the_end(seconds(60)));
  for (size_t i = 0; i < questions.size(); ++i) {
    EXPECT_EQ(judge_whole(questions[i], swarm.clients()[i]->reader()), "");
  }
  EXPECT_EQ(judge_whole(late, latecomer.reader()), "");
  EXPECT_TRUE(eventually([&] { return ready() == 200; }));
}

}  // namespace
}  // namespace inferneo::testing
