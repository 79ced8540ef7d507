#include "base/config/environment.h"

#include <gtest/gtest.h>

#include "base/config/suggest.h"

namespace inferneo {
namespace {

Environment environment_of(Environment::Variables variables) { return Environment(std::move(variables)); }

TEST(Environment, EmptyCountsAsUnset) {
  const Environment env = environment_of({{"A", ""}, {"B", "x"}});
  EXPECT_FALSE(env.get("A").has_value());
  EXPECT_EQ(env.get("B"), "x");
  EXPECT_FALSE(env.get("C").has_value());
}

TEST(Environment, HubCacheFollowsTheUsualVariables) {
  EXPECT_EQ(Environment().hub_cache(), "") << "no HOME is fine";
  EXPECT_EQ(environment_of({{"HOME", "/h"}}).hub_cache(), "/h/.cache/huggingface/hub");
  EXPECT_EQ(environment_of({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}).hub_cache(), "/x/huggingface/hub");
  EXPECT_EQ(environment_of({{"HOME", "/h"}, {"HF_HOME", "~/hf"}, {"XDG_CACHE_HOME", "/x"}}).hub_cache(), "/h/hf/hub");
  EXPECT_EQ(environment_of({{"HF_HUB_CACHE", "/c"}, {"HF_HOME", "/f"}}).hub_cache(), "/c");
}

TEST(Environment, HubTokenLiesBesideTheCache) {
  EXPECT_EQ(Environment().hub_token_file(), "");
  EXPECT_EQ(environment_of({{"HOME", "/h"}}).hub_token_file(), "/h/.cache/huggingface/token");
  EXPECT_EQ(environment_of({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}).hub_token_file(), "/x/huggingface/token");
  EXPECT_EQ(environment_of({{"HOME", "/h"}, {"HF_HOME", "~/hf"}}).hub_token_file(), "/h/hf/token");
  EXPECT_EQ(environment_of({{"HF_TOKEN_PATH", "/t"}, {"HF_HOME", "/f"}}).hub_token_file(), "/t");
}

TEST(Environment, OwnFolderFollowsXdg) {
  EXPECT_EQ(Environment().inferneo_home(), "");
  EXPECT_EQ(environment_of({{"HOME", "/h"}}).inferneo_home(), "/h/.local/share/inferneo");
  EXPECT_EQ(environment_of({{"HOME", "/h"}, {"XDG_DATA_HOME", "/d"}}).inferneo_home(), "/d/inferneo");
}

TEST(Environment, KnowsWhatKubernetesInjects) {
  for (const auto* name : {"INFERNEO_SERVICE_HOST", "INFERNEO_SERVICE_PORT", "INFERNEO_SERVICE_PORT_HTTP",
                           "INFERNEO_PORT_8000_TCP", "INFERNEO_PORT_8000_TCP_ADDR", "INFERNEO_PORT_8000_TCP_PORT",
                           "INFERNEO_PORT_8000_TCP_PROTO", "INFERNEO_GPU_PORT_53_UDP_ADDR"}) {
    EXPECT_TRUE(is_injected_variable(name, "x")) << name;
  }
  EXPECT_TRUE(is_injected_variable("INFERNEO_PORT", "tcp://10.0.0.1:8000"));
  EXPECT_TRUE(is_injected_variable("INFERNEO_PORT", "udp://10.0.0.1:53"));
  EXPECT_FALSE(is_injected_variable("INFERNEO_PORT", "8000"));
  for (const auto* name : {"INFERNEO_PORT_X_TCP", "INFERNEO_TCP", "INFERNEO_8000_TCP", "INFERNEO_PROT"}) {
    EXPECT_FALSE(is_injected_variable(name, "x")) << name;
  }
}

TEST(Suggest, NearestWordOrNone) {
  const std::vector<std::string_view> known = {"max_num_seqs", "max_memory_gb", "port", "host"};
  EXPECT_EQ(nearest_word("max-num-seq", known), "max_num_seqs");
  EXPECT_EQ(nearest_word("Port", known), "port");
  EXPECT_EQ(nearest_word("max_memory", known), "max_memory_gb");
  EXPECT_EQ(nearest_word("prot", known), "port") << "neighbours swapped";
  EXPECT_EQ(nearest_word("temperature", known), "");
  EXPECT_EQ(nearest_word("", known), "");
  EXPECT_EQ(nearest_word(std::string(100000, 'a'), known), "");
}

}  // namespace
}  // namespace inferneo
