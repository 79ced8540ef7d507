// The program itself, as a script would run it: outputs, errors, exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/config/load.h"
#include "program.h"

namespace inferneo {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

TEST(Program, VersionAndHelp) {
  EXPECT_EQ(run("--version").code, 0);
  EXPECT_THAT(run("--version").text, testing::StartsWith("inferneo "));
  EXPECT_EQ(run("--help").code, 0);
  EXPECT_EQ(run("").code, 2) << "nothing asked for is a mistake";
  for (const auto* command : {"serve", "run", "bench", "config"}) {
    const Outcome help = run(std::string(command) + " --zebra --help");
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.text, HasSubstr(std::string("Usage: inferneo ") + command));
    EXPECT_EQ(run(std::string("help ") + command).text, help.text);
  }
}

TEST(Program, MistakesEndWithTwo) {
  EXPECT_EQ(run("sreve m").text, "inferneo: no command 'sreve', did you mean 'serve'?\n");
  for (const auto* line : {"sreve", "serve", "serve --zebra", "serve m --port x", "run", "config --config absent.yaml",
                           "bench m --input-len x", "bench --no-peaks", "run m --temperature hot"}) {
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.code, 2) << line << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("inferneo: ")) << line;
  }
  EXPECT_THAT(run("serve m", "INFERNEO_PORT=x").text, HasSubstr("inferneo: INFERNEO_PORT: expected a whole number"));
}

TEST(Program, ModelsThatAreNotThereAreAFailure) {
  for (const auto* line : {"run ./absent hello", "serve ./absent --port 0", "bench ./absent --no-peaks"}) {
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.code, 1) << line << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("absent")) << line;
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

TEST(Program, NoticesAndWarningsAreSaidOnce) {
  const Outcome outcome = run("config", "INFERNEO_ENABLE_CUDA_GRAPH=true INFERNEO_ZEBRA=1");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.text, HasSubstr("enable_cuda_graph has no effect yet"));
  EXPECT_THAT(outcome.text, HasSubstr("unknown environment variable INFERNEO_ZEBRA"));
  EXPECT_EQ(outcome.text.find("no effect"), outcome.text.rfind("no effect"));
}

TEST(Program, MarkdownIsTheDocument) { EXPECT_EQ(run("config --markdown").text, config_markdown()); }

TEST(Program, ClosedOutputIsNoCrash) {
  EXPECT_EQ(run("config --markdown | true").code, 0);
  EXPECT_EQ(run("--help >&-").code, 0);
}

}  // namespace
}  // namespace inferneo
