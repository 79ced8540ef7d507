// Texts that are not tokenized again: the tokens are those of tokenizing the whole, whatever was remembered before.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "fixtures.h"

namespace inferneo {
namespace {

TokenizerFiles bundled_files(const std::string& name) {
  const auto read = [&](const std::string& file) {
    std::ifstream in(std::string(INFERNEO_SOURCE_DIR) + "/models/" + name + "/" + file);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  };
  return {read("tokenizer.json"), read("tokenizer_config.json"), read("chat_template.jinja")};
}

TokenizerFiles files_of(const std::string& name) {
  return name.starts_with("inferneo") ? bundled_files(name) : fixture_files(name);
}

std::shared_ptr<const Tokenizer> remembering(const std::string& name, size_t bytes = size_t{1} << 20,
                                             std::function<bool(size_t)> may_take = {}) {
  TokenizerFiles files = files_of(name);
  files.cache = {.max_bytes = bytes, .may_take = std::move(may_take)};
  auto tokenizer = load_tokenizer(files);
  EXPECT_TRUE(tokenizer.ok()) << name;
  return *tokenizer;
}

std::vector<std::string> all_tokenizers() {
  std::vector<std::string> names = families();
  names.insert(names.end(), {"inferneo-story", "inferneo-code"});
  return names;
}

// Everything at which a text could be cut wrongly, and plain words between, so that parts get long.
const std::vector<std::string>& snippets() {
  static const std::vector<std::string> list = {
      "the quick brown fox jumps over the lazy dog and then some more words follow it ",
      "Once upon a time there was a little girl named Lily who loved to play outside ",
      "it's they'll we'VE I'd don't ",
      "def f(x):\n    return x + 1\n\n\n",
      "a b",
      " ",
      "  ",
      "\n",
      "\r\n",
      "\t ",
      " \n x",
      "12345 67 8",
      "A1 b2C ",
      "...!? -- (x) ",
      "x/y .\n/z ",
      "\xc3\xa9t\xc3\xa9 ",
      "e\xcc\x81 a\xcc\x88\xcc\x81 ",
      "\xcc\x81",
      "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c",
      "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xd0\xbc\xd0\xb8\xd1\x80 ",
      "\xf0\x9f\x91\x8b\xf0\x9f\x8f\xbd ",
      "\xef\xbd\x86\xef\xbd\x95\xef\xbd\x8c\xef\xbd\x8c \xef\xac\x81 ",
      "\xc2\xa0",
      "\xe2\x96\x81",
      "<|im_start|>user\n",
      "<|im_end|>\n",
      "<|endoftext|>",
      "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
      "[INST] ",
      " [/INST]",
      "</s>",
      "<s>",
      "<unk>",
      "<start_of_turn>model\n",
      "<extra_id_0> ",
      "[CLS] [SEP] [MASK]",
      "<tool_call>",
      "<think>\n",
  };
  return list;
}

class TextMaker {
 public:
  explicit TextMaker(uint32_t seed) : random_(seed) {}
  std::string piece(size_t bytes) {
    std::string text;
    while (text.size() < bytes) {
      const size_t of_words = random_() % 4 != 0 ? 2 : snippets().size();  // mostly words
      text += snippets()[random_() % of_words];
    }
    return text;
  }
  size_t below(size_t bound) { return random_() % bound; }

 private:
  std::mt19937 random_;
};

class TokenCacheLaw : public testing::TestWithParam<std::string> {};

TEST_P(TokenCacheLaw, TokensAreThoseOfTheWholeText) {
  const auto plain = *load_tokenizer(files_of(GetParam()));
  const auto cached = remembering(GetParam());
  TextMaker maker(7);
  std::vector<std::string> parts;
  for (int i = 0; i < 12; ++i) parts.push_back(maker.piece(size_t{1} << (2 * (i % 6) + 2)));
  for (int i = 0; i < 30; ++i) {
    std::string text;
    for (size_t count = 1 + maker.below(4); count > 0; --count) text += parts[maker.below(parts.size())];
    text += maker.piece(maker.below(50));
    const bool special = i % 2 == 0;
    ASSERT_EQ(cached->encode(text, special).value(), plain->encode(text, special).value()) << text;
    ASSERT_EQ(cached->encode_with_control(text, special).value(), plain->encode_with_control(text, special).value())
        << text;
  }
  const CacheCounts counts = cached->cache_counts();
  EXPECT_GT(counts.hits, 4000U) << "the control: some was not tokenized again";
  EXPECT_EQ(plain->cache_counts(), CacheCounts{});
}

TEST_P(TokenCacheLaw, AgreesWithTheReference) {
  if (GetParam().starts_with("inferneo")) GTEST_SKIP() << "has no cases of its own";
  const auto cached = remembering(GetParam());
  const auto cases = load_cases(GetParam());
  for (int round = 0; round < 2; ++round) {  // computed, then remembered
    for (const auto& item : cases["encode"]) {
      const auto text = item["text"].get<std::string>();
      EXPECT_EQ(cached->encode_with_control(text, false).value(), item["ids"].get<std::vector<Token>>()) << text;
      EXPECT_EQ(cached->encode_with_control(text, true).value(), item["full"].get<std::vector<Token>>()) << text;
    }
  }
}

uint64_t fnv1a(const std::vector<Token>& ids) {
  uint64_t hash = 0xcbf29ce484222325U;
  for (const Token id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xffU)) * 0x100000001b3U;
    }
  }
  return hash;
}

TEST_P(TokenCacheLaw, LongTextsAgreeWithTheReference) {
  if (GetParam().starts_with("inferneo")) GTEST_SKIP() << "has no cases of its own";
  const auto cases = nlohmann::json::parse(read_fixture(".", "long_texts.json"));
  const auto plain = *load_tokenizer(files_of(GetParam()));
  const auto cached = remembering(GetParam());
  for (size_t i = 0; i < cases["texts"].size(); ++i) {
    const auto text = cases["texts"][i].get<std::string>();
    const auto& expected = cases["families"][GetParam()][i];
    for (const Tokenizer* tokenizer : {plain.get(), cached.get(), cached.get()}) {
      const std::vector<Token> ids = tokenizer->encode_with_control(text, true).value();
      EXPECT_EQ(ids.size(), expected["count"].get<size_t>()) << i;
      EXPECT_EQ(fnv1a(ids), std::stoull(expected["full"].get<std::string>(), nullptr, 16)) << i;
    }
  }
}

TEST_P(TokenCacheLaw, ChatsThatGrowHaveTheSameTokensAndHit) {
  const auto plain = *load_tokenizer(files_of(GetParam()));
  if (!plain->has_chat_template()) GTEST_SKIP() << "has no chat template";
  const auto cached = remembering(GetParam());
  TextMaker maker(11);
  nlohmann::json messages = nlohmann::json::array();
  for (int turn = 0; turn < 8; ++turn) {
    messages.push_back(
        {{"role", turn % 2 == 0 ? "user" : "assistant"}, {"content", maker.piece(40 + 300 * (turn % 3))}});
    if (turn % 2 == 1) continue;
    ChatInput chat;
    chat.messages = messages.dump();
    const auto expected = plain->apply_chat_template(chat);
    const auto got = cached->apply_chat_template(chat);
    ASSERT_EQ(got.ok(), expected.ok());
    if (expected.ok()) {
      ASSERT_EQ(*got, *expected) << chat.messages;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, TokenCacheLaw, testing::ValuesIn(all_tokenizers()), [](const auto& name) {
  std::string shown = name.param;
  std::replace(shown.begin(), shown.end(), '-', '_');
  return shown;
});

// Words of letters alone, no two alike.
std::string words(size_t count, const std::string& first = "word") {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : " ") + first;
    for (size_t rest = i; rest > 0; rest /= 26) text += static_cast<char>('a' + rest % 26);
  }
  return text;
}

TEST(TokenCache, ALongBeginningIsFoundAgain) {
  for (const char* family : {"gpt2", "llama3", "qwen2", "inferneo-story"}) {
    const auto cached = remembering(family);
    const std::string document = words(4000);
    ASSERT_TRUE(cached->encode(document + " and one question", false).ok());
    EXPECT_EQ(cached->cache_counts().hits, 0U);
    ASSERT_TRUE(cached->encode(document + " and another one, which is longer", false).ok());
    EXPECT_GT(cached->cache_counts().hits, document.size() * 9 / 10) << family;
  }
}

TEST(TokenCache, NothingIsKnownAcrossSalts) {
  const auto cached = remembering("llama3");
  const std::string text = words(100);
  const auto hits_of = [&](std::string_view salt) {
    const uint64_t before = cached->cache_counts().hits;
    EXPECT_TRUE(cached->encode_salted(text, false, salt).ok());
    return cached->cache_counts().hits - before;
  };
  EXPECT_EQ(hits_of("a"), 0U);
  EXPECT_EQ(hits_of("a"), text.size());
  EXPECT_EQ(hits_of("b"), 0U);
  EXPECT_EQ(hits_of(""), 0U);
  EXPECT_EQ(hits_of("b"), text.size());
  // Trusted text has control tokens where a user's has none: neither is the other's.
  EXPECT_EQ(cached->cache_counts().hits, 2 * text.size());
  ASSERT_TRUE(cached->encode_with_control(text, false).ok());
  EXPECT_EQ(cached->cache_counts().hits, 2 * text.size());
}

TEST(TokenCache, StaysWithinItsBytes) {
  constexpr size_t kBytes = size_t{64} << 10;
  const auto cached = remembering("gpt2", kBytes);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(cached->encode(words(100 + static_cast<size_t>(i) % 50, "w" + std::to_string(i) + "x"), false).ok());
    ASSERT_LE(cached->cache_counts().bytes, kBytes);
  }
  EXPECT_GT(cached->cache_counts().evictions, 50U);
  EXPECT_GT(cached->cache_counts().bytes, kBytes / 4);
}

TEST(TokenCache, TakesOnlyWhatItMay) {
  std::vector<size_t> asked;
  bool yes = false;
  const auto cached = remembering("gpt2", size_t{4} << 20, [&](size_t bytes) {
    asked.push_back(bytes);
    return yes;
  });
  const std::string text = words(50);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cached->encode(text, false).ok());
  EXPECT_EQ(cached->cache_counts(), CacheCounts{});
  EXPECT_EQ(asked, (std::vector<size_t>{size_t{1} << 20, size_t{1} << 20, size_t{1} << 20}));
  yes = true;
  ASSERT_TRUE(cached->encode(text, false).ok());
  ASSERT_TRUE(cached->encode(text, false).ok());
  EXPECT_EQ(cached->cache_counts().hits, text.size());
  EXPECT_EQ(asked.size(), 4U) << "it is asked when it grows, not each time";
}

TEST(TokenCache, ManyThreadsShareIt) {
  const auto plain = *load_tokenizer(files_of("qwen2"));
  const auto cached = remembering("qwen2", size_t{32} << 10);  // small: they evict each other's
  TextMaker maker(3);
  std::vector<std::string> texts;
  std::vector<std::vector<Token>> expected;
  for (int i = 0; i < 24; ++i) {
    texts.push_back(maker.piece(100 + 80 * static_cast<size_t>(i)));
    expected.push_back(plain->encode(texts.back(), false).value());
  }
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 150; ++i) {
        const size_t at = (i * (t + 1)) % texts.size();
        wrong += cached->encode(texts[at], false).value() == expected[at] ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(cached->cache_counts().bytes, size_t{32} << 10);
}

}  // namespace
}  // namespace inferneo
