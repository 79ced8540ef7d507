// The program in surroundings that want to break it: odd arguments and files, streams that are closed or that nobody
// reads, a foreign locale, no home.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "program.h"
#include "raw_client.h"
#include "support/temp_tree.h"
#include "support/utf8.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

const std::string kModel = std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft";

TEST(HostileProgram, ArgumentsThatAreNoneEndInAnErrorThatSaysSo) {
  const testing::TempTree tree;
  tree.write("file", "x");
  tree.directory("empty");
  tree.write("pickle/config.json", "{}");
  tree.write("pickle/pytorch_model.bin", "\x80\x02}q.");
  tree.write("no_weights/config.json", R"({"architectures":["LlamaForCausalLM"]})");
  tree.directory("is_a_directory/config.json");
  tree.link("/proc/self/environ", "leak/config.json");
  tree.link("/dev/zero", "endless/config.json");
  tree.write("bad.yaml", "port: [\n");
  const std::string root = tree.root() + "/";
  const std::vector<std::string> lines = {
      "run " + root + "file hello",
      "run " + root + "empty hello",
      "run " + root + "pickle hello",
      "run " + root + "no_weights hello",
      "run " + root + "is_a_directory hello",
      "run " + root + "leak hello",
      "run " + root + "endless hello",
      "run /proc/self hello",
      "run /dev/null hello",
      "run '' hello",
      "run \"$(printf 'm\\377')\" hello",
      "run " + kModel + " hello --max-tokens 99999999999999999999",
      "run " + kModel + " hello --max-tokens -1",
      "run " + kModel + " hello --temperature nan",
      "run " + kModel + " hello --temperature inf",
      "run " + kModel + " hello --temperature 1e999",
      "run " + kModel + " hello --top-p 0x1",
      "run " + kModel + " hello --no-such-option",
      "run " + kModel + " hello \"--$(printf '\\377\\033[31m')\"",
      "serve " + kModel + " --port 65536",
      "serve " + kModel + " --port -1",
      "serve " + kModel + " --host 'a b'",
      "serve " + kModel + " --config " + root + "bad.yaml",
      "serve " + kModel + " --config " + root + "empty",
      "serve " + kModel + " --config /dev/zero",
      "serve " + kModel + " --tls-cert " + root + "file --tls-key " + root + "file",
      "serve " + kModel + " " + kModel,
      "serve " + kModel + " --max-memory-gb 1e-9",
      "bench " + root + "empty --no-peaks",
      "config --config " + root + "bad.yaml",
  };
  for (const std::string& line : lines) {
    const auto start = std::chrono::steady_clock::now();
    const Outcome outcome = run(line);
    EXPECT_TRUE(outcome.code == 1 || outcome.code == 2) << line << ": " << outcome.code << " " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("inferneo: ")) << line;
    EXPECT_LT(outcome.text.size(), 2'000U) << line;
    EXPECT_THAT(outcome.text, Not(HasSubstr("\033"))) << line << ": what the caller wrote reached the terminal";
    EXPECT_THAT(outcome.text, Not(HasSubstr("HOME="))) << line << ": a file that is none of the model's was read";
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << line;
  }
}

// What a terminal or a script may hold that is no UTF-8: read with replacement characters, or refused.
TEST(HostileProgram, PromptsOfAnyBytesEndInAnswersOrErrors) {
  for (const char* prompt : {"a\\377b", "\\355\\240\\200", "\\033[31m", "<|im_end|>", ""}) {
    const Outcome outcome = run("run " + kModel + " \"$(printf '" + prompt + "')\" --max-tokens 3");
    EXPECT_LE(outcome.code, 2) << prompt << ": " << outcome.text;
    EXPECT_TRUE(testing::is_utf8(outcome.text)) << prompt;
  }
}

// `inferneo serve` as a child: standard output closed, standard error a pipe that is read until the start line only.
class Child {
 public:
  explicit Child(std::vector<std::string> arguments) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return;
    log_ = pipe[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, STDIN_FILENO);
    posix_spawn_file_actions_addclose(&actions, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
    arguments.insert(arguments.begin(), INFERNEO_PROGRAM);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    // No HOME and a locale whose decimal point is a comma.
    std::string locale = "LC_ALL=de_DE.UTF-8";
    std::string language = "LANG=de_DE.UTF-8";
    std::array<char*, 3> environment = {locale.data(), language.data(), nullptr};
    if (::posix_spawn(&pid_, INFERNEO_PROGRAM, &actions, nullptr, argv.data(), environment.data()) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
    ::close(pipe[1]);
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(log_);
  }

  // From the start line.
  uint16_t port() {
    constexpr std::string_view kAddress = "http://127.0.0.1:";
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      const size_t at = text_.find(kAddress);
      if (at != std::string::npos && text_.find("/v1", at) != std::string::npos) {
        return static_cast<uint16_t>(std::stoi(text_.substr(at + kAddress.size())));
      }
      if (!read_some()) return 0;
    }
    return 0;
  }
  const std::string& text() const { return text_; }

  // The exit code after SIGTERM; -1 when it does not end.
  int terminate() {
    ::kill(pid_, SIGTERM);
    for (int i = 0; i < 400; ++i) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return -1;
  }

 private:
  bool read_some() {
    pollfd waiting{log_, POLLIN, 0};
    if (::poll(&waiting, 1, 1000) <= 0) return true;
    std::array<char, 4096> chunk;
    const ssize_t n = ::read(log_, chunk.data(), chunk.size());
    if (n > 0) text_.append(chunk.data(), static_cast<size_t>(n));
    return n > 0;
  }

  pid_t pid_ = -1;
  int log_ = -1;
  std::string text_;
};

TEST(HostileProgram, ServesWithoutReadersOfItsStreamsOrAHomeInAForeignLocale) {
  const testing::TempTree tree;
  tree.write("broken/config.json", R"({"architectures":["LlamaForCausalLM"],"hidden_size":0})");
  tree.write("broken/model.safetensors", "x");
  Child child({"serve", kModel, tree.path("broken"), "--served-model-name", "story", "--served-model-name", "broken",
               "--enable-lazy-loading", "--port", "0", "--max-memory-gb", "0.25", "--num-threads", "1"});
  const uint16_t port = child.port();
  ASSERT_NE(port, 0) << child.text();
  const auto complete = [&](const std::string& model) {
    return fetch(
        port, "POST", "/v1/completions",
        R"({"prompt":"Once","max_tokens":3,"logprobs":2,"temperature":0.5,"seed":1,"model":")" + model + "\"}");
  };
  // Each failing load is a line of the log: more of them than a pipe holds.
  for (int i = 0; i < 700; ++i) {
    const auto response = complete("broken");
    ASSERT_TRUE(response) << "request " << i;
    EXPECT_EQ(response->status, 503) << response->body;
  }
  const auto response = complete("story");
  ASSERT_TRUE(response);
  ASSERT_EQ(response->status, 200) << response->body;
  const Json logprobs = Json::parse(response->body)["choices"][0]["logprobs"]["token_logprobs"];
  ASSERT_EQ(logprobs.size(), 3U);
  for (const Json& logprob : logprobs) EXPECT_TRUE(logprob.is_number_float()) << response->body;
  const auto metrics = fetch(port, "GET", "/health");
  ASSERT_TRUE(metrics);
  EXPECT_EQ(metrics->status, 200);
  EXPECT_EQ(child.terminate(), 0);
}

}  // namespace
}  // namespace inferneo
