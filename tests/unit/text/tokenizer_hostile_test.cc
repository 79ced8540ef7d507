// Files and texts that want to break the tokenizer: typed errors, bounded time, never a crash.
#include <gtest/gtest.h>

#include <random>

#include "fixtures.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

using Json = nlohmann::ordered_json;

TEST(TokenizerText, InvalidUtf8IsAnInvalidArgument) {
  const auto tokenizer = load_fixture("qwen2");
  for (const char* bad : {"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "ok\x80"}) {
    for (const auto& result : {tokenizer->encode(bad, false), tokenizer->encode_with_control(bad, true)}) {
      ASSERT_FALSE(result.ok()) << bad;
      EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    }
  }
  using namespace std::string_literals;
  const auto nul = tokenizer->encode("a\0b\0"s, false);
  ASSERT_TRUE(nul.ok());
  EXPECT_EQ(tokenizer->decode(*nul, false).value(), "a\0b\0"s);
}

TEST(TokenizerText, TokensThatDoNotExist) {
  const auto tokenizer = load_fixture("qwen2");
  const std::vector<Token> padded = {tokenizer->vocab_size(), tokenizer->vocab_size() + 100, 2'000'000'000};
  EXPECT_EQ(tokenizer->decode(padded, false).value(), "");
  const std::vector<Token> negative = {-1};
  EXPECT_EQ(tokenizer->decode(negative, false).error().code, ErrorCode::invalid_argument);
  EXPECT_FALSE(tokenizer->new_stream(false)->push(-5).ok());
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_FALSE(tokenizer->is_special(-1));
}

TEST(TokenizerText, TooMuchTextIsRefused) {
  const auto tokenizer = load_fixture("gpt2");
  EXPECT_EQ(tokenizer->encode(std::string((16 << 20) + 1, 'a'), false).error().code, ErrorCode::payload_too_large);
}

// Every split of every character over tokens: nothing invalid leaves early, nothing is lost.
TEST(StreamDecoding, EveryPieceIsValidUtf8AndTheSumIsTheBatch) {
  std::mt19937 rng(3);
  for (const std::string& family : families()) {
    const auto tokenizer = load_fixture(family);
    for (int round = 0; round < 60; ++round) {
      std::vector<Token> tokens(40);
      for (Token& token : tokens) {
        // Mostly the small ids, where byte tokens live, so that broken characters are common.
        token = static_cast<Token>(rng() % static_cast<uint32_t>(round % 2 ? 300 : tokenizer->vocab_size()));
      }
      auto decoder = tokenizer->new_stream(round % 3 == 0);
      std::string text;
      for (Token token : tokens) {
        const std::string piece = decoder->push(token).value();
        EXPECT_NO_THROW((void)Json(piece).dump()) << "invalid UTF-8 left the decoder";
        text += piece;
      }
      text += decoder->finish().value();
      EXPECT_NO_THROW((void)Json(text).dump());
      EXPECT_EQ(text, tokenizer->decode(tokens, round % 3 == 0).value()) << family;
    }
  }
}

// Where a run of byte tokens is broken, the characters that are complete survive.
TEST(StreamDecoding, BrokenByteRunsKeepTheirValidCharacters) {
  const auto tokenizer = load_fixture("llama2");
  const auto byte = [&](const char* hex) { return tokenizer->token_to_id("<0x" + std::string(hex) + ">").value(); };
  const std::vector<Token> tokens = {byte("C3"), byte("A9"), byte("E2"), byte("82"), byte("41"), byte("F0")};
  EXPECT_EQ(tokenizer->decode(tokens, false).value(), "\u00e9\ufffdA\ufffd");
  auto decoder = tokenizer->new_stream(false);
  EXPECT_EQ(decoder->push(tokens[0]).value(), "");
  EXPECT_EQ(decoder->push(tokens[1]).value(), "\u00e9") << "a complete character is not held back";
}

TEST(StreamDecoding, LongOutputsTakeLinearTime) {
  for (const char* family : {"llama3", "llama2", "bert"}) {
    const auto tokenizer = load_fixture(family);
    const auto run = [&](int count) {
      auto decoder = tokenizer->new_stream(false);
      for (int i = 0; i < count; ++i) (void)decoder->push(200 + i % 50).value();
      (void)decoder->finish().value();
    };
    const double small = cpu_seconds([&] { run(20'000); });
    const double large = cpu_seconds([&] { run(200'000); });
    EXPECT_LT(large, 40 * small + 0.2) << family;
  }
}

class BadTokenizerJson : public testing::Test {
 protected:
  Json tree_ = Json::parse(read_fixture("qwen2", "tokenizer.json"));

  static void refuse(const std::string& text, const std::string& what) {
    const auto loaded = load_tokenizer({text, "", ""});
    ASSERT_FALSE(loaded.ok()) << what;
    EXPECT_TRUE(loaded.error().code == ErrorCode::malformed || loaded.error().code == ErrorCode::unsupported) << what;
    EXPECT_FALSE(loaded.error().message.empty()) << what;
  }
};

TEST_F(BadTokenizerJson, IsATypedErrorThatNamesTheFile) {
  refuse("", "empty");
  refuse("null", "null");
  refuse("[]", "array");
  refuse("{}", "no model");
  refuse("\xff\xfe", "not UTF-8");
  refuse(std::string(200'000, '['), "deep arrays");
  refuse(R"({"model":)" + std::string(100'000, '{'), "deep objects");
  std::string deep = R"({"type":"NFC"})";
  for (int i = 0; i < 5'000; ++i) deep = R"({"type":"Sequence","normalizers":[)" + deep + "]}";
  refuse(R"({"version":"1.0","normalizer":)" + deep + R"(,"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})",
         "deep");
  const auto error = load_tokenizer({"{", "", ""});
  EXPECT_NE(error.error().message.find("tokenizer.json"), std::string::npos);
}

TEST_F(BadTokenizerJson, Truncated) {
  const std::string text = tree_.dump();
  for (size_t length = 0; length < text.size(); length += text.size() / 40) refuse(text.substr(0, length), "truncated");
}

TEST_F(BadTokenizerJson, DuplicateAndOutOfRangeIds) {
  auto tree = tree_;
  tree["model"]["vocab"]["a new token"] = 5;
  refuse(tree.dump(), "two tokens with one id");
  tree = tree_;
  tree["model"]["vocab"]["a new token"] = 4'000'000'000U;
  refuse(tree.dump(), "id out of range");
  tree = tree_;
  tree["model"]["vocab"]["a new token"] = -1;
  refuse(tree.dump(), "negative id");
  tree = tree_;
  tree["model"]["vocab"]["a new token"] = 1e300;
  refuse(tree.dump(), "not an integer");
  tree = tree_;
  tree["added_tokens"][1]["id"] = tree["added_tokens"][0]["id"];
  refuse(tree.dump(), "two added tokens with one id");
  tree = tree_;
  tree["added_tokens"][0]["id"] = 99'999;
  refuse(tree.dump(), "an added token with an id that it does not get");
  tree = tree_;
  tree["added_tokens"][1]["content"] = tree["added_tokens"][0]["content"];
  refuse(tree.dump(), "an added token twice");
}

TEST_F(BadTokenizerJson, BadMergesAndParts) {
  auto tree = tree_;
  tree["model"]["merges"].push_back(Json::array({"no such", "token"}));
  refuse(tree.dump(), "a merge of unknown tokens");
  tree = tree_;
  tree["model"]["merges"][0] = "a b c";
  refuse(tree.dump(), "a merge of three");
  tree = tree_;
  tree["model"]["vocab"] = Json::object();
  refuse(tree.dump(), "merges without a vocabulary");
  for (const char* part : {"model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"}) {
    for (const char* value : {"7", "\"x\"", R"({"type":"Nonsense"})", "true"}) {
      tree = tree_;
      tree[part] = Json::parse(value);
      refuse(tree.dump(), std::string(part) + " = " + value);
    }
  }
}

// Random damage: whatever loads must also work, the rest is a typed error.
TEST_F(BadTokenizerJson, RandomDamageNeverCrashes) {
  std::mt19937 rng(11);
  for (const char* family : {"qwen2", "llama2", "unigram", "bert"}) {
    const std::string text = read_fixture(family, "tokenizer.json");
    for (int round = 0; round < 40; ++round) {
      std::string damaged = text;
      for (int hits = 0; hits < 1 + round % 4; ++hits) {
        const size_t at = rng() % damaged.size();
        if (round % 3 == 0) {
          damaged[at] = static_cast<char>(rng() % 256);
        } else if (round % 3 == 1) {
          damaged.erase(at, rng() % 50);
        } else {
          damaged.insert(at, damaged.substr(rng() % damaged.size(), rng() % 50));
        }
      }
      const auto loaded = load_tokenizer({damaged, read_fixture(family, "tokenizer_config.json"), ""});
      if (!loaded.ok()) continue;
      const auto tokens = (*loaded)->encode("Hello w\u00f6rld 123 <|im_end|>\n", true);
      if (tokens.ok()) {
        EXPECT_TRUE((*loaded)->decode(*tokens, true).ok());
      }
    }
  }
}

class ChatTemplates : public testing::Test {
 protected:
  static std::shared_ptr<const Tokenizer> with_template(const std::string& source) {
    auto files = fixture_files("qwen2");
    files.chat_template_jinja = source;
    auto loaded = load_tokenizer(files);
    EXPECT_TRUE(loaded.ok());
    return *loaded;
  }

  static Result<std::string> render(const std::string& source, const std::string& messages = R"([{"role":"user"}])") {
    ChatInput chat;
    chat.messages = messages;
    return with_template(source)->render_chat_template(chat);
  }
};

TEST_F(ChatTemplates, BombsEndInTime) {
  const std::vector<std::string> bombs = {
      "{% for i in range(1000000000) %}x{% endfor %}",
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s "
      "}}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{{ 'x' * 1000000000 }}",
      "{% for i in range(9999) %}{% set x = 'x' * 90000000 %}{% endfor %}",
      "{% set x = 'x' * 9000 %}{{ x.replace('', x).replace('', x) | length }}",
      "{% set x = 'x' * 900000 %}{{ x.replace('x', x) | length }}",
      "{% set x = 'x' * 99000 %}{{ x.join(range(99999)) | length }}",
      "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
      "{% set x = 'x' * 90000 %}{% for i in range(99999) %}{{ x | tojson }}{% endfor %}",
      "{% set x = range(99999) %}{% for i in range(99999) %}{{ x | list | sort | length }}{% endfor %}",
      "{{ '%99999999999d' | format(1) }}",
      "{{ ([1] * 99999999) | list | length }}{{ ([1] * 99999999) | list | length }}",
      "{% for i in range(999) %}{{ ([1] * 99999999) | sort | length }}{% endfor %}",
      "{% for i in range(999) %}{{ ([1] * 99999999) | tojson | length }}{% endfor %}",
      "{% set a = [1] * 9999 %}{% for i in range(9999) %}{% set b = a + a %}{% endfor %}",
      "{% set a = ['x' * 9999] * 9999 %}{% for i in range(9999) %}{{ a | join(',') | length }}{% endfor %}",
      "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
      "{% for i in range(99999) %}{{ ('a' * 90000).upper() | length }}{% endfor %}",
      "{% for i in range(99999) %}{{ ('a ' * 40000).split() | length }}{% endfor %}",
  };
  for (const std::string& bomb : bombs) {
    const auto tokenizer = with_template(bomb);
    ChatInput chat;
    chat.messages = R"([{"role":"user","content":"x"}])";
    Result<std::string> result = std::string();
    const double took = cpu_seconds([&] { result = tokenizer->render_chat_template(chat); });
    EXPECT_FALSE(result.ok()) << bomb;
    if (!result.ok()) {
      EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << bomb;
    }
    EXPECT_LT(took, 0.25 * kSlowdown) << bomb;
  }
}

TEST_F(ChatTemplates, BrokenOnesSayWhy) {
  for (const std::string& broken : {std::string("{% if %}"), std::string("{{ "), std::string("{% endfor %}"),
                                    std::string(5'000, '(') + "{{" + std::string(50'000, '(') + "}}"}) {
    const auto result = render(broken);
    ASSERT_FALSE(result.ok()) << broken.substr(0, 40);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
  }
  const auto raised = render("{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(raised.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(raised.error().message.find("roles must alternate"), std::string::npos);
  EXPECT_FALSE(render("x", "{}").ok());
  EXPECT_FALSE(render("x", "[").ok());
  EXPECT_FALSE(render("x", std::string(100'000, '[')).ok());
  EXPECT_FALSE(load_fixture("gpt2")->render_chat_template({}).ok()) << "no messages at all";
}

TEST_F(ChatTemplates, KnowTheDate) {
  const auto year = render("{{ strftime_now('%Y') }}");
  ASSERT_TRUE(year.ok()) << year.error().message;
  EXPECT_EQ(year->size(), 4U);
  EXPECT_GE(std::stoi(*year), 2024);
}

TEST_F(ChatTemplates, OverridesAndNamedOnes) {
  auto files = fixture_files("qwen2");
  EXPECT_TRUE((*load_tokenizer(files))->has_chat_template());
  Json config = Json::parse(files.tokenizer_config_json);
  config["chat_template"] = Json::parse(
      R"([{"name":"default","template":"plain"},{"name":"tool_use","template":"with {{ tools | length }} tools"}])");
  files.tokenizer_config_json = config.dump();
  auto tokenizer = *load_tokenizer(files);
  ChatInput chat;
  chat.messages = R"([{"role":"user","content":"x"}])";
  EXPECT_EQ(tokenizer->render_chat_template(chat).value(), "plain");
  chat.tools = R"([{"type":"function"}])";
  EXPECT_EQ(tokenizer->render_chat_template(chat).value(), "with 1 tools");
  files.chat_template_jinja = "override";
  EXPECT_EQ((*load_tokenizer(files))->render_chat_template(chat).value(), "override");
  files = fixture_files("qwen2");
  files.tokenizer_config_json = "";
  tokenizer = *load_tokenizer(files);
  EXPECT_FALSE(tokenizer->has_chat_template());
  EXPECT_EQ(tokenizer->apply_chat_template(chat).error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace inferneo
