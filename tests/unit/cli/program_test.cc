// The program itself, as a script would run it: outputs, errors, exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>

#include "base/config/load.h"
#include "program.h"
#include "support/scripted_hub.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Program, VersionAndHelp) {
  EXPECT_EQ(run("--version").code, 0);
  EXPECT_THAT(run("--version").text, ::testing::StartsWith("inferneo "));
  EXPECT_EQ(run("--help").code, 0);
  EXPECT_EQ(run("").code, 2) << "nothing asked for is a mistake";
  for (const auto* command : {"serve", "run", "bench", "pull", "convert", "config"}) {
    const Outcome help = run(std::string(command) + " --zebra --help");
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.text, HasSubstr(std::string("Usage: inferneo ") + command));
    EXPECT_EQ(run(std::string("help ") + command).text, help.text);
  }
}

TEST(Program, MistakesEndWithTwo) {
  EXPECT_EQ(run("sreve m").text, "inferneo: no command 'sreve', did you mean 'serve'?\n");
  for (const auto* line : {"sreve", "serve --zebra", "serve m --port x", "run", "config --config absent.yaml", "pull",
                           "pull ./x", "pull a/b c/d", "bench m --input-len x", "bench --no-peaks",
                           "bench m --roofline --no-peaks", "run m --temperature hot", "convert", "convert m",
                           "convert m o --precision bf16", "convert m o --block-size x"}) {
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.code, 2) << line << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("inferneo: ")) << line;
  }
  EXPECT_THAT(run("serve m", "INFERNEO_PORT=x").text, HasSubstr("inferneo: INFERNEO_PORT: expected a whole number"));
}

TEST(Program, ModelsThatAreNotThereAreAFailure) {
  for (const auto* line :
       {"run ./absent hello", "serve ./absent --port 0", "bench ./absent --no-peaks", "bench ./absent --roofline"}) {
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.code, 1) << line << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("absent")) << line;
  }
}

TEST(Program, ConvertsAModel) {
  const inferneo::testing::TempTree tree;
  const std::string model = std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/models/llama3";
  const std::string output = tree.path("out");
  const Outcome done = run("convert " + model + " " + output + " --precision int8 --block-size 64");
  EXPECT_EQ(done.code, 0) << done.text;
  EXPECT_THAT(done.text, HasSubstr(output));
  EXPECT_TRUE(std::filesystem::exists(output + "/model.onnx.data"));
  EXPECT_EQ(run("convert " + model + " " + output).code, 1) << "it is there already";
  EXPECT_EQ(run("convert " + model + " " + output + " --overwrite --no-verify").code, 0);
  EXPECT_EQ(run("convert " + model + " " + tree.path("b") + " --block-size 33").code, 2);
  const Outcome absent = run("convert ./absent " + tree.path("c"), "HF_HUB_OFFLINE=1");
  EXPECT_EQ(absent.code, 1);
  EXPECT_THAT(absent.text, HasSubstr("absent"));
}

TEST(Program, PullPutsAModelWhereRunFindsIt) {
  inferneo::testing::ScriptedHub hub;
  hub.add("org/name", std::string(40, '1'), {{"config.json", "{}"}, {"model.safetensors", "x", true}});
  const inferneo::testing::TempTree tree;
  const std::string environment = "HF_TOKEN=planted-secret HOME='" + tree.root() + "' HF_ENDPOINT=" + hub.endpoint();
  const Outcome pulled = run("pull org/name", environment);
  EXPECT_EQ(pulled.code, 0) << pulled.text;
  EXPECT_THAT(pulled.text, HasSubstr(tree.path(".cache/huggingface/hub/models--org--name/snapshots/1111")));
  EXPECT_THAT(pulled.text, HasSubstr("\nrun it with: inferneo run org/name\n"));
  EXPECT_THAT(run("run org/name hello", environment).text, HasSubstr("config.json")) << "found, and not a model";
  EXPECT_THAT(run("pull org/name --files config.json --hub-cache " + tree.path("c"), environment).text,
              Not(HasSubstr("run it")));

  const Outcome unknown = run("pull org/nam", environment);
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.text, HasSubstr("no such model"));
  EXPECT_THAT(unknown.text, HasSubstr("did you mean 'org/name'?"));
  const Outcome offline = run("pull org/name", environment + " HF_HUB_OFFLINE=1");
  EXPECT_EQ(offline.code, 1);
  EXPECT_THAT(offline.text, HasSubstr("HF_HUB_OFFLINE"));
  for (const Outcome& outcome : {pulled, unknown, offline}) EXPECT_THAT(outcome.text, Not(HasSubstr("planted-secret")));
}

// The sizes of all unfinished downloads below a folder, added up.
size_t incomplete_bytes(const std::string& folder) {
  size_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".incomplete") bytes += entry.file_size();
  }
  return bytes;
}

TEST(Program, AnInterruptedPullEndsWithTheSignal) {
  inferneo::testing::ScriptedHub hub;
  hub.add("org/name", std::string(40, '1'),
          {{"config.json", "{}"}, {"model.safetensors", std::string(9999, 'x'), true}});
  hub.set_script([](const auto& request, auto& reply) {
    if (request.method != "GET" || request.target.find("model.safetensors") == std::string::npos) return;
    reply.send = 5000;
    reply.then = inferneo::testing::ScriptedHub::Reply::Then::stall;
  });
  const inferneo::testing::TempTree tree;
  for (const int signal : {SIGINT, SIGTERM}) {
    std::array<std::string, 3> words = {"pull", "org/name", "--hub-endpoint=" + hub.endpoint()};
    std::string program = INFERNEO_PROGRAM;
    std::array<char*, 5> arguments = {program.data(), words[0].data(), words[1].data(), words[2].data(), nullptr};
    std::string home = "HOME=" + tree.root();
    std::array<char*, 2> environment = {home.data(), nullptr};
    const pid_t child = ::fork();
    if (child == 0) {
      ::execve(program.c_str(), arguments.data(), environment.data());
      ::_exit(99);
    }
    for (int i = 0; i < 500 && incomplete_bytes(tree.root()) < 5000; ++i) ::usleep(20'000);
    ::kill(child, signal);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + signal);
    EXPECT_EQ(incomplete_bytes(tree.root()), 5000U);
    std::filesystem::remove_all(tree.path(".cache"));
  }
}

TEST(Program, PublicAddressIsRefusedBeforeTheModelIsLoaded) {
  const Outcome outcome = run("serve ./absent --host 0.0.0.0");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.text, HasSubstr("--insecure"));
  EXPECT_THAT(outcome.text, Not(HasSubstr("absent")));
}

TEST(Program, ConfigShowsValuesSourcesAndNoSecrets) {
  const Outcome outcome = run("config models/a --port 81 --api-key planted-secret", "INFERNEO_MAX_NUM_SEQS=7 HOME=/h");
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_THAT(outcome.text, ContainsRegex("\nport: +81 +# --port\n"));
  EXPECT_THAT(outcome.text, ContainsRegex("\nmodel: +models/a +# MODEL\n"));
  EXPECT_THAT(outcome.text, ContainsRegex("\nmax_num_seqs: +7 +# INFERNEO_MAX_NUM_SEQS\n"));
  EXPECT_THAT(outcome.text, ContainsRegex("\nhost: +127.0.0.1 +# default\n"));
  EXPECT_THAT(outcome.text, ContainsRegex("\napi_key: +\\*\\*\\* +# --api-key\n"));
  EXPECT_THAT(outcome.text, Not(HasSubstr("planted")));
}

TEST(Program, WarningsAreSaidOnce) {
  const Outcome outcome = run("config", "INFERNEO_ZEBRA=1");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.text, HasSubstr("unknown environment variable INFERNEO_ZEBRA"));
  EXPECT_EQ(outcome.text.find("INFERNEO_ZEBRA"), outcome.text.rfind("INFERNEO_ZEBRA"));
}

TEST(Program, DoctorSaysWhatIsThere) {
  const Outcome outcome = run("doctor");
  EXPECT_EQ(outcome.code, 0);
  for (const char* line : {"CPUs", "memory limit", "CUDA kernels", "NVIDIA driver", "NCCL"}) {
    EXPECT_THAT("\n" + outcome.text, HasSubstr(std::string("\n") + line)) << outcome.text;
  }
}

TEST(Program, MarkdownIsTheDocument) { EXPECT_EQ(run("config --markdown").text, config_markdown()); }

TEST(Program, ClosedOutputIsNoCrash) {
  EXPECT_EQ(run("config --markdown | true").code, 0);
  EXPECT_EQ(run("--help >&-").code, 0);
}

}  // namespace
}  // namespace inferneo
