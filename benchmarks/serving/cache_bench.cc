// What tokenizing costs with and without the cache of texts, and what asking the cache of answers costs.
//   cache_bench [TOKENIZER_DIR [ROUNDS [BYTES]]]     default: the bundled story model, 40 rounds, 65536 bytes
// Three cases of each text, in turn and in changing order, processor time of this thread: off (no cache), miss (a text
// that nobody has sent), hit (the same text with a new end). Once as plain text and once as a chat that grows by a
// message. Printed are medians in microseconds, and the median of miss over off with the interval that holds it at 95 %
// (bootstrap). The cache is small and full before the first round, so that a miss drives others out, as on a server
// that has run for a while.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "manager/answer_cache.h"
#include "text/tokenizer.h"

namespace inferneo {
namespace {

double cpu_micros() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::shared_ptr<const Tokenizer> load(const std::string& folder, size_t cache_bytes) {
  TokenizerFiles files{read_file(folder + "/tokenizer.json"), read_file(folder + "/tokenizer_config.json"),
                       read_file(folder + "/chat_template.jinja")};
  files.cache.max_bytes = cache_bytes;
  auto tokenizer = load_tokenizer(files);
  if (tokenizer.ok()) return *tokenizer;
  fmt::print(stderr, "{}: {}\n", folder, tokenizer.error().message);
  std::exit(1);
}

std::string text_of(uint64_t seed, size_t bytes) {
  constexpr std::string_view kWords[] = {"the",   "model", "request", "paper", "of",    "a",
                                         "to",    "light", "little",  "in",    "stone", "write",
                                         "house", "with",  "green",   "city",  "water", "Tomorrow"};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < bytes) {
    const uint64_t draw = random();
    text += kWords[draw % std::size(kWords)];
    if (draw % 97 == 0) text += std::to_string(draw % 5000);
    text += draw % 12 == 0 ? (draw % 5 == 0 ? ".\n" : ", ") : " ";
  }
  return text;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::pair<double, double> interval(const std::vector<double>& values) {
  std::mt19937_64 random(1);
  std::vector<double> medians;
  for (int i = 0; i < 2000; ++i) {
    std::vector<double> drawn;
    for (size_t k = 0; k < values.size(); ++k) drawn.push_back(values[random() % values.size()]);
    medians.push_back(median(std::move(drawn)));
  }
  std::sort(medians.begin(), medians.end());
  return {medians[50], medians[medians.size() - 51]};
}

using Encode = std::function<std::vector<Token>(const Tokenizer& tokenizer, const std::string& text, bool longer)>;

void measure(const std::string& name, const std::string& folder, int rounds, size_t bytes, const Encode& encode) {
  const auto off = load(folder, 0);
  const auto on = load(folder, size_t{4} << 20);
  std::vector<double> off_times, miss_times, hit_times, ratios;
  size_t num_tokens = 0;
  const auto timed = [&](const Tokenizer& tokenizer, const std::string& text, bool longer) {
    const double begin = cpu_micros();
    num_tokens = encode(tokenizer, text, longer).size();
    return cpu_micros() - begin;
  };
  int warm_up = 2;
  while (on->cache_counts().evictions == 0 && warm_up < 500) {
    (void)timed(*on, text_of(static_cast<uint64_t>(1'000'000 + warm_up++), bytes), false);
  }
  for (int round = 0; round < rounds + 2; ++round) {  // the first two are for warming up what has no cache
    const std::string text = text_of(static_cast<uint64_t>(round) + 1, bytes);
    double without = 0.0;
    if (round % 2 == 0) without = timed(*off, text, false);
    const double miss = timed(*on, text, false);
    if (round % 2 == 1) without = timed(*off, text, false);
    const double hit = timed(*on, text, true);
    if (round < 2) continue;
    off_times.push_back(without);
    miss_times.push_back(miss);
    hit_times.push_back(hit);
    ratios.push_back(without / miss);  // of speeds: below 1 is slower
  }
  const auto [low, high] = interval(ratios);
  fmt::print(
      "{}: {} tokens; off {:.0f} us, miss {:.0f} us, hit {:.0f} us; speed of a miss {:.3f} x off "
      "(95 %: {:.3f} to {:.3f}), of a hit {:.1f} x\n",
      name, num_tokens, median(off_times), median(miss_times), median(hit_times), median(ratios), low, high,
      median(off_times) / median(hit_times));
}

std::string chat_of(const std::string& text, bool longer) {
  const auto message = [](const char* role, std::string_view content) {
    std::string escaped;
    for (const char c : content) {
      if (c == '\n') {
        escaped += "\\n";
      } else {
        escaped += c;
      }
    }
    return fmt::format(R"({{"role": "{}", "content": "{}"}})", role, escaped);
  };
  std::string messages = "[";
  constexpr size_t kMessage = 2000;
  for (size_t at = 0; at < text.size(); at += kMessage) {
    messages += (at == 0 ? "" : ", ") +
                message(at / kMessage % 2 == 0 ? "user" : "assistant", std::string_view(text).substr(at, kMessage));
  }
  if (longer) messages += ", " + message("user", "And what happened then? Tell me more of it.");
  return messages + "]";
}

std::vector<Token> value_of(Result<std::vector<Token>> tokens) {
  if (tokens.ok()) return *std::move(tokens);
  fmt::print(stderr, "{}\n", tokens.error().message);
  std::exit(1);
}

void measure_questions(size_t num_tokens) {
  std::vector<Token> prompt(num_tokens);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<Token>(i * 7919 % 50'000);
  std::vector<double> times;
  for (int i = 0; i < 200; ++i) {
    prompt[0] = i;
    const double begin = cpu_micros();
    const AnswerKey key = answer_key({prompt, SamplingParams{}, "", true});
    times.push_back(cpu_micros() - begin + (key[0] == 0 ? 1e-9 : 0.0));
  }
  fmt::print("question of {} tokens: its key {:.0f} us\n", num_tokens, median(times));
}

int run(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : INFERNEO_SOURCE_DIR "/models/inferneo-story";
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 40;
  const size_t bytes = argc > 3 ? static_cast<size_t>(std::atoll(argv[3])) : 65'536;
  measure("text", folder, rounds, bytes, [](const Tokenizer& tokenizer, const std::string& text, bool longer) {
    return value_of(tokenizer.encode(longer ? text + " and what happened then?" : text, true));
  });
  if (load(folder, 0)->has_chat_template()) {
    measure("chat", folder, rounds, bytes, [](const Tokenizer& tokenizer, const std::string& text, bool longer) {
      ChatInput chat;
      chat.messages = chat_of(text, longer);
      return value_of(tokenizer.apply_chat_template(chat));
    });
  }
  measure_questions(bytes / 4);
  return 0;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) { return inferneo::run(argc, argv); }
