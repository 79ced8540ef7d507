// Arms of A/B tests with prompts and engines of their own, on a bundled model, from end to end; and the template that
// comes with a registration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "app/application.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kTemplate = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";

struct Reply {
  GenerateOutcome outcome;
  std::string route;
  std::string text;
  std::vector<Token> prompt;
  std::shared_ptr<const Tokenizer> tokenizer;

  std::string prompt_text() const { return tokenizer == nullptr ? "" : tokenizer->decode(prompt, false).value(); }
};

class ReplySink final : public OutputSink {
 public:
  void on_route(std::string route) override { reply_.route = std::move(route); }
  void on_prompt(PromptInfo info) override {
    reply_.prompt = std::move(info.tokens);
    reply_.tokenizer = std::move(info.tokenizer);
    begun_.set_value();
  }
  void on_delta(OutputDelta delta) override { reply_.text += delta.text; }
  void on_done(GenerateOutcome outcome) override {
    reply_.outcome = std::move(outcome);
    done_.set_value(std::move(reply_));
  }
  void wait_until_begun() { begun_.get_future().wait(); }
  Reply wait() { return done_.get_future().get(); }

 private:
  Reply reply_;
  std::promise<void> begun_;
  std::promise<Reply> done_;
};

class ArmsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::copy(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story", tree_.path("story"));
    // Old enough to be known by its times.
    fs::last_write_time(tree_.path("story") + "/model.safetensors",
                        fs::file_time_type::clock::now() - std::chrono::hours(1));
    start();
  }
  void start() {
    application_.reset();  // one at a time has the registry
    EngineConfig config;
    config.models = {{.source = tree_.path("story"), .name = "story"}};
    config.model_roots = {tree_.root()};
    config.home = tree_.path("home");
    config.max_memory_gb = 1.0;
    config.max_num_batched_tokens = 256;
    config.num_threads = 2;
    config.ab_tests = configured_;
    auto made = Application::create(config, {.registry = tree_.path("registry.db")});
    ASSERT_TRUE(made.ok()) << made.error().message;
    application_ = *std::move(made);
    const Status loaded = application_->load_models();
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  }
  static void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  static ABTestConfig own_arm(ABTestArm b) {
    b.model = "story";
    return {.name = "own", .arms = {{.model = "story"}, std::move(b)}};
  }
  static ChatInput hello() {
    ChatInput chat;
    chat.messages = R"([{"role":"user","content":"hello"}])";
    return chat;
  }
  std::shared_ptr<ReplySink> send(std::variant<std::string, std::vector<Token>, ChatInput> prompt,
                                  const std::string& arm, int tokens = 4, const std::string& model = "story") {
    GenerateRequest request;
    request.model = model;
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = tokens;
    request.sampling.temperature = 0.0F;
    request.sampling.ignore_eos = true;
    request.explicit_sampling.temperature = true;
    request.traits.forced_arm = arm;
    auto sink = std::make_shared<ReplySink>();
    application_->service().generate(std::move(request), sink);
    return sink;
  }
  Reply ask(std::variant<std::string, std::vector<Token>, ChatInput> prompt, const std::string& arm = "",
            const std::string& model = "story") {
    Reply reply = send(std::move(prompt), arm, 4, model)->wait();
    EXPECT_FALSE(reply.outcome.error) << reply.outcome.error->message;
    return reply;
  }
  size_t used_by(const std::string& id) const { return application_->ledger().used_by(id); }

  testing::TempTree tree_;
  std::vector<ABTestConfig> configured_;
  std::unique_ptr<Application> application_;
};

TEST_F(ArmsTest, AnArmsPromptsAreThoseOfItsChatsAlone) {
  const std::string own = ask(hello()).prompt_text();
  EXPECT_THAT(own, HasSubstr("<|im_start|>user\nhello"));
  expect_ok(
      application_->traffic().add_test(own_arm({.prompt_template = kTemplate, .system_prompt = "Be brief."}), true));
  EXPECT_EQ(ask(hello(), "A").prompt_text(), own);
  const Reply b = ask(hello(), "B");
  EXPECT_EQ(b.prompt_text(), "[system]Be brief.[user]hello");
  EXPECT_EQ(b.route, "test=own; arm=B; model=story") << "prompts need no engine of their own";
  ChatInput with_system = hello();
  with_system.messages = R"([{"role":"system","content":"Be long."},{"role":"user","content":"hello"}])";
  EXPECT_EQ(ask(with_system, "B").prompt_text(), "[system]Be long.[user]hello");
  EXPECT_EQ(ask(std::string("hello"), "B").prompt, ask(std::string("hello"), "A").prompt) << "a completion";
  expect_ok(application_->traffic().promote("own", "B"));
  EXPECT_EQ(ask(hello()).prompt_text(), "[system]Be brief.[user]hello");
  start();
  EXPECT_EQ(ask(hello()).prompt_text(), "[system]Be brief.[user]hello") << "after a restart too";
  expect_ok(application_->traffic().remove_test("own"));
  EXPECT_EQ(ask(hello()).prompt_text(), own);
}

TEST_F(ArmsTest, AnArmsEngineSharesTheWeightsAndIsCountedToTheByte) {
  const size_t before = application_->ledger().used();
  expect_ok(
      application_->traffic().add_test(own_arm({.settings = {{"max_model_len", "64"}, {"max_num_seqs", "2"}}}), true));
  EXPECT_EQ(application_->ledger().used(), before) << "loaded when somebody gets the arm";
  const Reply b = ask(hello(), "B");
  EXPECT_EQ(b.route, "test=own; arm=B; model=story~own~B");
  EXPECT_EQ(application_->ledger().used() - before, used_by("story:1~own~B")) << "its cache and workspace, no more";
  EXPECT_EQ(b.text, ask(hello(), "A").text) << "it is the same model";
  const auto status = application_->manager().status("story~own~B");
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(status->id, "story:1~own~B");
  EXPECT_EQ(status->variant_of, "story:1");
  EXPECT_EQ(status->model->max_model_len, 64);
  EXPECT_GT(application_->manager().status("story")->model->max_model_len, 64) << "A's is as it was";
  EXPECT_EQ(status->model->spec.weight_origin, "shared");
  const MemoryLedger& ledger = application_->ledger();
  EXPECT_EQ(ledger.used_by("story:1~own~B", MemoryPurpose::weights), 0U) << "they are in memory once";
  EXPECT_GT(ledger.used_by("story:1~own~B"), 0U);
  for (const ServedModel& model : application_->service().models()) EXPECT_EQ(model.id.find('~'), std::string::npos);
}

TEST_F(ArmsTest, AnArmsEngineGoesWithTheTestAndNeverUnderARequest) {
  expect_ok(application_->traffic().add_test(own_arm({.settings = {{"max_num_seqs", "2"}}}), true));
  const auto running = send(std::string("Once"), "B", 400);
  running->wait_until_begun();
  expect_ok(application_->traffic().remove_test("own"));
  EXPECT_FALSE(application_->manager().status("story~own~B").ok());
  const Reply reply = running->wait();
  EXPECT_FALSE(reply.outcome.error) << reply.outcome.error->message;
  EXPECT_EQ(reply.outcome.usage.completion_tokens, 400);
  for (int i = 0; i < 10'000 && used_by("story:1~own~B") > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(used_by("story:1~own~B"), 0U);
  EXPECT_EQ(ask(hello()).route, "model=story");
}

TEST_F(ArmsTest, WhoFindsTheArmsEngineGoneGetsTheModelItself) {
  expect_ok(application_->traffic().add_test(own_arm({.settings = {{"max_num_seqs", "2"}}}), true));
  application_->manager().set_variants({});  // as when the test ends just after the arm was chosen
  const Reply reply = ask(hello(), "B");
  EXPECT_EQ(reply.route, "test=own; arm=B; model=story");
  const auto results = Traffic::results(*application_->traffic().snapshot()->find_test("own"));
  EXPECT_EQ(results.outcomes.arm(1).failed(), 0) << "nobody failed";
}

TEST_F(ArmsTest, ARestartBringsTheArmsEngineBack) {
  expect_ok(application_->traffic().add_test(own_arm({.settings = {{"max_model_len", "64"}}}), true));
  start();
  EXPECT_EQ(application_->manager().status("story~own~B")->state, ModelState::unloaded);
  EXPECT_EQ(ask(hello(), "B").route, "test=own; arm=B; model=story~own~B");
  EXPECT_EQ(application_->manager().status("story~own~B")->model->max_model_len, 64);
  expect_ok(application_->traffic().stop_test("own"));
  start();
  EXPECT_FALSE(application_->manager().status("story~own~B").ok()) << "a stopped test has none";
  expect_ok(application_->traffic().remove_test("own"));
  configured_ = {own_arm({.settings = {{"max_model_len", "32"}}})};
  start();
  EXPECT_EQ(ask(std::string("Once"), "B").route, "test=own; arm=B; model=story~own~B");
  EXPECT_EQ(application_->manager().status("story~own~B")->model->max_model_len, 32);
}

TEST_F(ArmsTest, SettingsThatNoModelHasAreRefusedWhenTheTestIsAdded) {
  for (const auto& [name, value, says] :
       {std::tuple("port", "1", "'port' is no setting of a model"),
        std::tuple("max_num_seqs", "many", "max_num_seqs: expected"), std::tuple("block_size", "17", "power of two")}) {
    const Status refused = application_->traffic().add_test(own_arm({.settings = {{name, value}}}), true);
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(refused.error().message, HasSubstr(says));
    EXPECT_THAT(refused.error().message, HasSubstr("arm B of 'own'"));
  }
  EXPECT_TRUE(application_->traffic().snapshot()->tests.empty());
}

TEST_F(ArmsTest, ATemplateComesWithARegistrationAsItsText) {
  ManagerCore& manager = application_->manager();
  const auto add = [&](const std::string& name, const std::string& text) {
    return manager.register_model({.name = name, .path = tree_.path("story"), .settings = {{"chat_template", text}}});
  };
  const auto broken = add("broken", "a\n{% for m in messages %}");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(broken.error().message, HasSubstr("line 2 of the template"));
  const auto file = add("file", "/etc/passwd");
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(file.error().message, HasSubstr("--chat-template FILE"));
  ASSERT_TRUE(add("terse", kTemplate).ok());
  EXPECT_EQ(ask(hello(), "", "terse").prompt_text(), "[user]hello");
  EXPECT_THAT(ask(hello()).prompt_text(), HasSubstr("<|im_start|>"));
  start();
  EXPECT_EQ(ask(hello(), "", "terse").prompt_text(), "[user]hello") << "the registry has it";
  expect_ok(application_->manager().amend("terse", {.settings = {{"chat_template", "{{ messages[0].content }}!"}}}));
  EXPECT_EQ(ask(hello(), "", "terse").prompt_text(), "[user]hello") << "until its next load";
  expect_ok(application_->manager().unload("terse", application_->clock().now()));
  EXPECT_EQ(ask(hello(), "", "terse").prompt_text(), "hello!");
  EXPECT_FALSE(application_->manager().amend("terse", {.settings = {{"chat_template", "{{"}}}).ok());
}

}  // namespace
}  // namespace inferneo
