// Whatever a model samples, the text that streams out is UTF-8 in every piece and the batch's in sum. The first byte
// picks the tokenizer and whether special tokens are skipped; two bytes are a token.
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "require.h"
#include "support/utf8.h"
#include "text/tokenizer.h"

namespace {

std::string read(const std::string& file) {
  std::ifstream in(INFERNEO_SOURCE_DIR "/tests/golden/tokenizers/" + file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

const inferneo::Tokenizer& tokenizer(size_t index) {
  static constexpr std::array kFamilies = {"qwen2", "llama2", "unigram", "bert", "gemma", "llama3"};
  static std::array<std::shared_ptr<const inferneo::Tokenizer>, kFamilies.size()> loaded;
  auto& entry = loaded[index % kFamilies.size()];
  if (entry == nullptr) {
    const std::string family = kFamilies[index % kFamilies.size()];
    auto result =
        inferneo::load_tokenizer({read(family + "/tokenizer.json"), read(family + "/tokenizer_config.json"), ""});
    require(result.ok(), "the fixture loads");
    entry = *result;
  }
  return *entry;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const inferneo::Tokenizer& chosen = tokenizer(data[0] >> 1U);
  const bool skip_special = (data[0] & 1U) != 0;
  std::vector<inferneo::Token> tokens;
  for (size_t i = 1; i + 1 < size; i += 2) {
    const int id = data[i] * 256 + data[i + 1];
    tokens.push_back(id % (data[i] % 2 == 0 ? 300 : chosen.vocab_size() + 2));  // where bytes live, or anywhere
  }
  const auto stream = chosen.new_stream(skip_special);
  std::string text;
  for (const inferneo::Token token : tokens) {
    const auto piece = stream->push(token);
    require(piece.ok() && inferneo::testing::is_utf8(*piece), "a piece is UTF-8");
    text += *piece;
  }
  const auto rest = stream->finish();
  require(rest.ok() && inferneo::testing::is_utf8(*rest), "the rest is UTF-8");
  const auto batch = chosen.decode(tokens, skip_special);
  require(batch.ok() && text + *rest == *batch, "the sum is the batch");
  return 0;
}
