// Precedence, positions of errors, and what the environment may hold.
#include "base/config/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/config/yaml_file.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

Environment of(Environment::Variables variables) { return Environment(std::move(variables)); }

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class LoadConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("config_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& text) {
    std::string path = folder_ / "test.yaml";
    std::ofstream(path) << text;
    return path;
  }
  Result<LoadedConfig> load_file(const std::string& text) {
    inputs_.file = write(text);
    return load_config(inputs_);
  }
  // The error's message with the path cut to the file's name.
  std::string error_of(const std::string& text) {
    auto loaded = load_file(text);
    if (loaded.ok()) return "no error";
    std::string message = loaded.error().message;
    const std::string prefix = folder_.string() + "/";
    if (const size_t at = message.find(prefix); at != std::string::npos) message.erase(at, prefix.size());
    return message;
  }

  std::filesystem::path folder_;
  ConfigInputs inputs_{.default_file = ""};
};

// A value that differs from the default, by the kind of the field; each `turn` another than the last.
std::string other_value(const ConfigField& field, int turn) {
  const std::string current = field_values(EngineConfig{}, field).empty() ? "" : field_values(EngineConfig{}, field)[0];
  if (is_bool_field(field)) return (current == "true") == (turn % 2 == 0) ? "false" : "true";
  if (!field.choices.empty()) {
    return std::string(field.choices[1 + static_cast<size_t>(turn) % (field.choices.size() - 1)].name);
  }
  if (field.name == "device") return "cuda:" + std::to_string(turn);
  if (field.name == "num_speculative_tokens") return std::to_string(2 + turn);
  if (field.name == "block_size") return std::to_string(32 << turn);
  if (field.name == "allowed_origins") return "https://page" + std::to_string(turn) + ".example";
  if (field.name == "otlp_headers") return "name=word" + std::to_string(turn);
  if (field.max <= 1.0) return "0." + std::to_string(turn + 2) + "1";  // a share
  const bool text = std::holds_alternative<std::string EngineConfig::*>(field.member) || is_list_field(field);
  return text ? "word" + std::to_string(turn) : std::to_string(turn + 101);
}

TEST_F(LoadConfig, EveryFieldByFileVariableAndFlag) {
  for (const ConfigField& field : config_fields()) {
    SCOPED_TRACE(field.name);
    const std::string in_file = other_value(field, 0);
    const std::string in_variable = other_value(field, 1);
    const std::string in_flag = other_value(field, 2);
    ConfigInputs inputs = inputs_;
    inputs.file = write(std::string(field.name) + ": " + in_file + "\n");
    const auto value_now = [&](ConfigSource source, const std::string& where) {
      auto loaded = load_config(inputs);
      EXPECT_TRUE(loaded.ok()) << (loaded.ok() ? "" : loaded.error().message);
      if (!loaded.ok()) return std::string();
      EXPECT_EQ(loaded->origins.at(field.name).source, source);
      EXPECT_THAT(loaded->origins.at(field.name).where, HasSubstr(where));
      EXPECT_EQ(loaded->notices.size(), field.notice.empty() ? 0U : 1U);
      return field_values(loaded->config, field).at(0);
    };
    EXPECT_EQ(value_now(ConfigSource::file, "test.yaml:1:" + std::to_string(field.name.size() + 3)), in_file);
    inputs.environment = of({{field_environment(field), in_variable}});
    EXPECT_EQ(value_now(ConfigSource::environment, field_environment(field)), in_variable);
    inputs.flags = {{std::string(field.name), in_flag, field_flag(field)}};
    EXPECT_EQ(value_now(ConfigSource::flag, field_flag(field)), in_flag);
    EXPECT_NE(in_file, in_variable);
  }
}

TEST_F(LoadConfig, NothingGivenIsTheDefault) {
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(loaded->origins.empty());
  EXPECT_THAT(loaded->warnings, IsEmpty());
  EXPECT_THAT(loaded->notices, IsEmpty());
  for (const ConfigField& field : config_fields()) {
    EXPECT_EQ(field_values(loaded->config, field), field_values(EngineConfig{}, field)) << field.name;
  }
}

TEST_F(LoadConfig, ErrorsSayWhereTheyStand) {
  EXPECT_EQ(error_of("# a comment\nhost: 0.0.0.0\nmax_num_seq: 4\n"),
            "test.yaml:3:1: unknown key 'max_num_seq', did you mean 'max_num_seqs'?");
  EXPECT_EQ(error_of("zebra: 4\n"), "test.yaml:1:1: unknown key 'zebra'; 'inferneo config' lists the known ones");
  EXPECT_EQ(error_of("quiet: true\nport:   eighty\n"),
            "test.yaml:2:9: port: expected a whole number from 0 to 65535, got 'eighty'");
  EXPECT_EQ(error_of("port: 1\nport: 2\n"), "test.yaml:2:1: 'port' stands here a second time");
  EXPECT_EQ(error_of("port: [1]\n"), "test.yaml:1:7: port: expected a whole number from 0 to 65535, got a list");
  EXPECT_THAT(error_of("port:\n"), HasSubstr("port: expected a whole number from 0 to 65535, got nothing"));
  EXPECT_EQ(error_of("model: {a: b}\n"), "test.yaml:1:8: model: expected a list of texts, got a mapping");
  EXPECT_EQ(error_of("model: [a, [b]]\n"), "test.yaml:1:12: model: expected a list of texts");
  EXPECT_THAT(error_of("port: [1\n"), HasSubstr("test.yaml:2:1: not YAML"));
  EXPECT_THAT(error_of("- a\n- b\n"), HasSubstr("test.yaml:1:1: expected lines of the form"));
  EXPECT_THAT(error_of("just words\n"), HasSubstr("expected lines of the form"));
  EXPECT_THAT(error_of("gpu_memory_utilization: .nan\n"), HasSubstr("got '.nan'"));
}

TEST_F(LoadConfig, ReadsShadows) {
  const auto loaded = load_file(R"(shadow:
  - {name: next, model: story, shadow_model: 'story:2', share: 0.1, max_tokens_per_minute: 60000}
  - {name: all, shadow_model: draft, salt: s, max_concurrent: 4, max_queue: 9, load: true, keep_texts: true,
     enabled: false}
)");
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const std::vector<ShadowConfig>& shadows = loaded->config.shadow;
  ASSERT_EQ(shadows.size(), 2U);
  EXPECT_EQ(
      shadows[0],
      (ShadowConfig{
          .name = "next", .model = "story", .shadow_model = "story:2", .share = 0.1, .max_tokens_per_minute = 60000}));
  EXPECT_EQ(shadows[1], (ShadowConfig{.name = "all",
                                      .shadow_model = "draft",
                                      .salt = "s",
                                      .max_concurrent = 4,
                                      .max_queue = 9,
                                      .load = true,
                                      .keep_texts = true,
                                      .enabled = false}));
  EXPECT_THAT(error_of("shadow:\n  - {name: a, sahre: 1}\n"), HasSubstr("did you mean 'share'"));
  EXPECT_THAT(error_of("shadow: {}\n"), HasSubstr("expected a list of shadows, got a mapping"));
}

TEST_F(LoadConfig, ReadsRoutingAndTests) {
  const auto loaded = load_file(R"(routing_rules:
  - name: code
    condition: "prompt contains 'def '"
    model_name: coder
    priority: 10
  - {name: no, condition: "turns > 9", refusal: {status: 429, message: slow down}, applies_to: all, enabled: false}
  - {name: chain, condition: "true", models: [a, b]}
routing:
  strategy: weighted
  candidates: [a, {model: b, weight: 2.5}]
  fallbacks: {a: [b, c], b: c}
  spill_over_at: 8
  routed_names: [smart]
ab_tests:
  - {name: two, model_a: a, model_b: b, traffic_split: 0.3, sticky_by: session, primary_metric: feedback}
  - name: three
    arms:
      - {name: A, model: a}
      - {name: B, model: a, sampling: {temperature: 0.2, max_tokens: 64}, completion_price: 2}
      - {name: C, model: b, version: '2', weight: 0.5, system_prompt: Be brief., settings: {max_num_seqs: 4}}
    ramp: [{after_seconds: 0, share: 0.01}, {after_seconds: 600, share: 0.6}]
    guardrails: {max_error_rate: 0.02, minimum_samples: 200}
)");
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const EngineConfig& config = loaded->config;
  ASSERT_EQ(config.routing_rules.size(), 3U);
  EXPECT_EQ(config.routing_rules[0].model_name, "coder");
  EXPECT_EQ(config.routing_rules[0].priority, 10);
  EXPECT_EQ(config.routing_rules[1].refusal->status, 429);
  EXPECT_EQ(config.routing_rules[1].applies_to, RoutingScope::all);
  EXPECT_FALSE(config.routing_rules[1].enabled);
  EXPECT_EQ(config.routing_rules[2].models, (std::vector<std::string>{"a", "b"}));
  EXPECT_LT(config.routing_rules[0].created, config.routing_rules[2].created);
  EXPECT_EQ(config.routing.options.strategy, RoutingStrategy::weighted);
  EXPECT_EQ(config.routing.options.candidates[1].weight, 2.5);
  EXPECT_EQ(config.routing.options.fallbacks.at("b"), std::vector<std::string>{"c"});
  EXPECT_EQ(config.routing.options.spill_over_at, 8);
  EXPECT_EQ(config.routing.routed_names, std::vector<std::string>{"smart"});
  ASSERT_EQ(config.ab_tests.size(), 2U);
  EXPECT_EQ(config.ab_tests[0].sticky_by, ABTestKey::session);
  EXPECT_EQ(config.ab_tests[0].primary_metric, ABTestMetric::feedback);
  ASSERT_EQ(config.ab_tests[1].arms.size(), 3U);
  EXPECT_EQ(config.ab_tests[1].arms[1].sampling.max_tokens, 64);
  EXPECT_EQ(config.ab_tests[1].arms[2].version, "2");
  EXPECT_EQ(config.ab_tests[1].arms[2].system_prompt, "Be brief.");
  EXPECT_EQ(config.ab_tests[1].arms[2].settings, (std::map<std::string, std::string>{{"max_num_seqs", "4"}}));
  EXPECT_EQ(config.ab_tests[1].ramp[1].share, 0.6);
  EXPECT_EQ(config.ab_tests[1].guardrails.minimum_samples, 200);
}

TEST_F(LoadConfig, ErrorsOfRoutingPointAtTheirPlace) {
  EXPECT_THAT(error_of("routing_rules: {}\n"),
              HasSubstr(":1:16: routing_rules: expected a list of rules, got a mapping"));
  EXPECT_THAT(error_of("routing_rules:\n  - {name: a, conditon: x}\n"), HasSubstr("unknown key 'conditon'"));
  EXPECT_THAT(error_of("routing_rules:\n  - {name: a, conditon: x}\n"), HasSubstr("did you mean 'condition'"));
  EXPECT_THAT(error_of("routing_rules:\n  - {name: a, priority: high}\n"),
              HasSubstr(":2:25: priority: expected a whole"));
  EXPECT_THAT(error_of("routing_rules:\n  - {name: a, name: b}\n"), HasSubstr("a second time"));
  EXPECT_THAT(error_of("routing: {strategy: fastest}\n"), HasSubstr("expected default, round_robin"));
  EXPECT_THAT(error_of("ab_tests:\n  - {name: t, sticky_by: ip}\n"), HasSubstr("expected user, session or request"));
  EXPECT_THAT(error_of("ab_tests:\n  - {name: t, traffic_split: .nan}\n"), HasSubstr("expected a number, got '.nan'"));
  EXPECT_THAT(error_of("ab_tests:\n  - {name: t, primary_metric: speed}\n"), HasSubstr("there are time_to_first"));
  EXPECT_THAT(error_of("ab_tests:\n  - {name: t, arms: [{model: a, settings: {port: 1}}]}\n"),
              HasSubstr(":2:44: 'port' is no setting of a model"));
  EXPECT_THAT(error_of("ab_tests:\n  - {name: t, arms: [{model: a, settings: {max_num_seqs: x}}]}\n"),
              HasSubstr("max_num_seqs: expected a whole number"));
}

TEST_F(LoadConfig, FilesThatAreNone) {
  inputs_.file = (folder_ / "absent.yaml").string();
  auto loaded = load_config(inputs_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::io_error);
  EXPECT_THAT(loaded.error().message, HasSubstr("absent.yaml"));
  EXPECT_THAT(error_of(std::string(2 << 20, '#')), HasSubstr("larger than 1 MiB"));
  inputs_.file = folder_.string();
  EXPECT_FALSE(load_config(inputs_).ok()) << "a folder";
  EXPECT_EQ(error_of(""), "no error");
  EXPECT_EQ(error_of("# nothing but a comment\n"), "no error");
}

TEST_F(LoadConfig, HostileFilesEndInAnError) {
  EXPECT_NE(error_of(std::string("\x01\x00\xff\xfe", 4)), "no error");
  EXPECT_NE(error_of("a: &a [*a]\n"), "no error");
  EXPECT_NE(error_of("port: !!binary aGk=\n"), "no error");
  EXPECT_NE(error_of("<<: *a\n"), "no error");
  EXPECT_NE(error_of("<<: {port: 1}\n"), "no error");
  EXPECT_NE(error_of("? [port]\n: 1\n"), "no error");
  EXPECT_NE(error_of("model: &a [*a]\n"), "no error");
  EXPECT_NE(error_of("port: 1\n---\nport: [\n"), "no error") << "what follows the document was not read";
  EXPECT_THAT(error_of("port: 1\n---\nzebra: 1\n"), HasSubstr("a second document"));
  const auto repeat = [](const std::string& unit, size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
  };
  // Each list names the one before nine times: four billion entries, if aliases were copied.
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 11; ++i) {
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 9; ++k) laughs += (k == 0 ? "*a" : ", *a") + std::to_string(i - 1);
    laughs += "]\n";
  }
  for (const std::string& bomb :
       {laughs + "model: *a10\n", "port: " + repeat("[", 100'000), repeat("- ", 500'000), repeat("? ", 500'000),
        repeat("a: ", 100'000), repeat("{a: ", 100'000), "port: " + repeat("!", 100'000), repeat("&a ", 300'000),
        repeat("a:\n", 500'000), repeat("port: 1\n", 500'000), "model: \"" + repeat("\\x41", 500'000),
        "model: |\n" + repeat(" \n", 500'000), repeat("#\n", 500'000) + "x", repeat("[a, {b: ", 50'000),
        std::string("# a\n  , {c: d --- second ...\n\n"), std::string("port: 1\n}")}) {
    std::string error;
    EXPECT_LT(cpu_seconds([&] { error = error_of(bomb); }), 5.0 * kSlowdown) << bomb.substr(0, 40);
    EXPECT_NE(error, "no error") << bomb.substr(0, 40);
    EXPECT_LT(error.size(), 1000U) << bomb.substr(0, 40);
  }
  EXPECT_LT(cpu_seconds([&] { error_of("model: [" + repeat("&a x, *a, ", 500'000) + "]"); }), 5.0 * kSlowdown);
}

TEST_F(LoadConfig, DefaultFileIsReadWhenThere) {
  inputs_.default_file = write("port: 8123\n");
  EXPECT_EQ(load_config(inputs_)->config.port, 8123);
  inputs_.default_file = folder_ / "absent.yaml";
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->file, "");
}

TEST_F(LoadConfig, VariableMayNameTheFile) {
  inputs_.environment = of({{"INFERNEO_CONFIG", write("port: 8124\n")}});
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->config.port, 8124);
  EXPECT_THAT(loaded->warnings, IsEmpty());
}

TEST_F(LoadConfig, ListsFromEverywhere) {
  EXPECT_THAT(load_file("model: one\n")->config.model, ElementsAre("one"));
  EXPECT_THAT(load_file("model: [one, two]\n")->config.model, ElementsAre("one", "two"));
  inputs_.environment = of({{"INFERNEO_MODEL", " a , b,,c "}});
  EXPECT_THAT(load_config(inputs_)->config.model, ElementsAre("a", "b", "c"));
  inputs_.flags = {{"model", "x", "MODEL"}, {"model", "y,z", "MODEL"}};
  EXPECT_THAT(load_config(inputs_)->config.model, ElementsAre("x", "y,z"));
}

TEST_F(LoadConfig, LastFlagWinsForSingleValues) {
  inputs_.flags = {{"port", "1", "--port"}, {"port", "2", "--port"}};
  EXPECT_EQ(load_config(inputs_)->config.port, 2);
}

TEST_F(LoadConfig, PathsMayBeginAtHome) {
  inputs_.environment = of({{"HOME", "/h"}, {"INFERNEO_MODEL", "~/m,./n"}, {"INFERNEO_HOST", "~/x"}});
  const auto loaded = load_config(inputs_);
  EXPECT_THAT(loaded->config.model, ElementsAre("/h/m", "./n"));
  EXPECT_EQ(loaded->config.host, "~/x") << "not a path";
  EXPECT_EQ(loaded->config.hub_cache, "/h/.cache/huggingface/hub");
}

TEST_F(LoadConfig, AliasOfAVariable) {
  inputs_.environment = of({{"INFERNEO_GPU_MEMORY_UTIL", "0.5"}});
  EXPECT_DOUBLE_EQ(load_config(inputs_)->config.gpu_memory_utilization, 0.5);
  EXPECT_THAT(load_config(inputs_)->warnings, IsEmpty());
  inputs_.environment = of({{"INFERNEO_GPU_MEMORY_UTIL", "0.5"}, {"INFERNEO_GPU_MEMORY_UTILIZATION", "0.6"}});
  EXPECT_DOUBLE_EQ(load_config(inputs_)->config.gpu_memory_utilization, 0.6);
  EXPECT_THAT(load_config(inputs_)->warnings, ElementsAre(HasSubstr("differ")));
}

TEST_F(LoadConfig, TheHubsOwnVariablesCount) {
  inputs_.environment =
      of({{"HF_ENDPOINT", "https://mirror"}, {"HF_TOKEN", "t"}, {"HF_HUB_OFFLINE", "1"}, {"HF_HOME", "/f"}});
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->config.hub_endpoint, "https://mirror");
  EXPECT_EQ(loaded->config.hub_token, "t");
  EXPECT_EQ(loaded->config.hub_token_file, "/f/token");
  EXPECT_EQ(loaded->config.hub_cache, "/f/hub");
  EXPECT_TRUE(loaded->config.hub_offline);
  EXPECT_EQ(format_field(loaded->config, *find_config_field("hub_token")), "***");
}

TEST_F(LoadConfig, OpenTelemetrysOwnVariablesCount) {
  inputs_.environment = of({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"},
                            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/spans"},
                            {"OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret, x-scope=a=b"},
                            {"OTEL_SERVICE_NAME", "chat"},
                            {"OTEL_TRACES_SAMPLER_ARG", "0.25"}});
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->config.otlp_endpoint, "http://collector:4318");
  EXPECT_EQ(loaded->config.otlp_traces_endpoint, "http://collector:4318/spans");
  EXPECT_EQ(loaded->config.otlp_headers, (std::vector<std::string>{"authorization=Bearer%20secret", "x-scope=a=b"}));
  EXPECT_EQ(loaded->config.otlp_service_name, "chat");
  EXPECT_EQ(loaded->config.trace_sample_ratio, 0.25);
  EXPECT_EQ(format_field(loaded->config, *find_config_field("otlp_headers")).find("secret"), std::string::npos);
}

TEST_F(LoadConfig, ABadHeaderForTracesIsNotQuoted) {
  inputs_.environment = of({{"OTEL_EXPORTER_OTLP_HEADERS", "secret"}});
  const auto loaded = load_config(inputs_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().message.find("secret"), std::string::npos) << loaded.error().message;
}

TEST_F(LoadConfig, BadVariableIsAnErrorThatNamesIt) {
  inputs_.environment = of({{"INFERNEO_MAX_NUM_SEQS", "lots"}});
  const auto loaded = load_config(inputs_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().message, "INFERNEO_MAX_NUM_SEQS: expected a whole number from 1 to 65536, got 'lots'");
}

TEST_F(LoadConfig, UnknownVariableWarns) {
  inputs_.environment = of({{"INFERNEO_MAX_MODEL_LENGTH", "1"}, {"INFERNEO_ZEBRA", "1"}, {"OTHER", "1"}});
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok());
  EXPECT_THAT(loaded->warnings, ElementsAre("unknown environment variable INFERNEO_MAX_MODEL_LENGTH, did you mean "
                                            "'INFERNEO_MAX_MODEL_LEN'?",
                                            "unknown environment variable INFERNEO_ZEBRA"));
}

TEST_F(LoadConfig, KubernetesServiceVariablesArePassedOver) {
  inputs_.environment = of({{"INFERNEO_PORT", "tcp://10.96.0.7:8000"},
                            {"INFERNEO_SERVICE_HOST", "10.96.0.7"},
                            {"INFERNEO_SERVICE_PORT", "8000"},
                            {"INFERNEO_SERVICE_PORT_HTTP", "8000"},
                            {"INFERNEO_PORT_8000_TCP", "tcp://10.96.0.7:8000"},
                            {"INFERNEO_PORT_8000_TCP_PROTO", "tcp"},
                            {"INFERNEO_PORT_8000_TCP_PORT", "8000"},
                            {"INFERNEO_PORT_8000_TCP_ADDR", "10.96.0.7"}});
  const auto loaded = load_config(inputs_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->config.port, 8000);
  EXPECT_THAT(loaded->warnings, IsEmpty());
}

TEST_F(LoadConfig, SecretsStayOutOfErrors) {
  inputs_.environment = of({{"INFERNEO_API_KEY", "planted secret"}});
  const auto loaded = load_config(inputs_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.error().message, Not(HasSubstr("planted")));
  EXPECT_THAT(loaded.error().message, HasSubstr("INFERNEO_API_KEY"));
}

TEST(ValidateConfig, HandFilledStructsAreChecked) {
  EXPECT_TRUE(validate_config({.model = {"a"}}).ok());
  EXPECT_EQ(validate_config({.max_num_seqs = 0}).error().param, "max_num_seqs");
  EXPECT_FALSE(validate_config({.max_memory_gb = std::numeric_limits<double>::quiet_NaN()}).ok());
  EXPECT_FALSE(validate_config({.block_size = 12}).ok());
  EXPECT_FALSE(validate_config({.model = {"a", "b"}, .served_model_name = {"x"}}).ok());
  EXPECT_TRUE(validate_config({.model = {"a"}, .served_model_name = {"x", "y"}}).ok());
  EXPECT_FALSE(validate_config({.model = {"a", "b"}, .max_models = 1}).ok());
  EXPECT_TRUE(validate_config({.device = "cuda", .tensor_parallel_size = 2}).ok());
  EXPECT_EQ(validate_config({.device = "cpu", .tensor_parallel_size = 2}).error().param, "tensor_parallel_size");
  EXPECT_EQ(validate_config({.tensor_parallel_size = 0}).error().param, "tensor_parallel_size");
  EXPECT_TRUE(validate_config({.quantization = "fp8"}).ok());
  EXPECT_TRUE(validate_config({.kv_cache_dtype = "fp8", .device = "cpu"}).ok());
  const Status on_cpu = validate_config({.quantization = "fp8", .device = "cpu"});
  EXPECT_EQ(on_cpu.error().param, "quantization");
  EXPECT_THAT(on_cpu.error().message, HasSubstr("needs device cuda"));
  EXPECT_TRUE(validate_config({.model = {"a", "b"}, .max_models = 1, .enable_lazy_loading = true}).ok());
}

TEST(ValidateServerConfig, PublicAddressNeedsAKey) {
  for (const auto* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost"}) {
    EXPECT_TRUE(validate_server_config({.host = host}).ok()) << host;
  }
  for (const auto* host : {"0.0.0.0", "::", "192.168.0.1", "example.org", "127.evil.example"}) {
    EXPECT_EQ(validate_server_config({.host = host}).error().code, ErrorCode::refused) << host;
    EXPECT_TRUE(validate_server_config({.host = host, .api_key = {"k"}}).ok());
    EXPECT_TRUE(validate_server_config({.host = host, .insecure = true}).ok());
  }
  EXPECT_FALSE(validate_server_config({.host = ""}).ok());
  EXPECT_FALSE(validate_server_config({.tls_cert = "c.pem"}).ok());
  EXPECT_FALSE(validate_server_config({.tls_key = "k.pem"}).ok());
  EXPECT_TRUE(validate_server_config({.tls_cert = "c.pem", .tls_key = "k.pem"}).ok());
}

TEST(ValidateServerConfig, TracesNeedAnAddressThatIsOne) {
  for (const auto* good : {"http://localhost:4318", "https://collector.example/otlp/", "http://[::1]:4318"}) {
    EXPECT_TRUE(validate_server_config({.otlp_endpoint = good}).ok()) << good;
    EXPECT_TRUE(validate_server_config({.otlp_traces_endpoint = good}).ok()) << good;
  }
  for (const auto* bad : {"localhost:4318", "grpc://localhost", "http://", "http:///v1", "http://u:secret@host",
                          "http://host?key=secret", "http://host#a", "http://ho st"}) {
    const Status status = validate_server_config({.otlp_endpoint = bad});
    ASSERT_FALSE(status.ok()) << bad;
    EXPECT_EQ(status.error().param, "otlp_endpoint");
    EXPECT_EQ(status.error().message.find("secret"), std::string::npos) << "an address may hold a key";
  }
}

}  // namespace
}  // namespace inferneo
