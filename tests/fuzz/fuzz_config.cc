// Whatever the text, a config is read or refused with a message, and every getter answers.
#include <cstdint>
#include <string_view>

#include "formats/config_reader.h"
#include "formats/generation_config.h"
#include "require.h"

namespace {

template <typename Value>
void require_answer(const Value& result) {
  if (!result.ok()) require(!result.error().message.empty() && result.error().message.size() < 20'000, "a short error");
}

void read_everything(const inferneo::ConfigReader& config, int depth) {
  for (const std::string& key : config.keys()) {
    require_answer(config.integer(key, -5, 5));
    require_answer(config.integer_or(key, 1, INT64_MIN, INT64_MAX));
    require_answer(config.number(key, 0.0, 1.0));
    require_answer(config.boolean(key));
    require_answer(config.string(key));
    require_answer(config.integers(key, 0, 10));
    require_answer(config.numbers(key));
    require_answer(config.strings(key));
    auto section = config.section(key);
    if (section.ok() && depth < 4) read_everything(*section, depth + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = inferneo::ConfigReader::parse(text, "config.json");
  require_answer(config);
  if (!config.ok()) return 0;
  const auto generation = inferneo::read_generation_config(*config, *config, 32'000);
  require_answer(generation);
  if (generation.ok()) {
    for (const inferneo::Token token : generation->eos_token_ids) {
      require(token >= 0 && token < 32'000, "a token id is in the vocabulary");
    }
  }
  read_everything(*config, 0);
  for (const std::string& name : config->unread()) require(name.find('.') != std::string::npos, "top level was read");
  return 0;
}
