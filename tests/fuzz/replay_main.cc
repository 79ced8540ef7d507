// Drives a fuzz target without libFuzzer: every file of the corpus, every truncation of the small ones, then seeded
// mutations. The same arguments give the same inputs; a failure prints the input's number, and --only=N runs just that.
//   fuzz_x [--runs=N | --soak-runs=N] [--seed=S] [--only=N] CORPUS_DIRECTORY...
// --soak-runs=N runs N mutations times INFERNEO_SOAK_SCALE (default 0.02).
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

struct Options {
  long runs = 40'000;
  unsigned long seed = 1;
  long only = -1;
  std::vector<std::string> folders;
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const char* value = argv[i] + std::min(argument.find('=') + 1, argument.size());
    if (argument.starts_with("--runs=")) {
      options.runs = std::atol(value);
    } else if (argument.starts_with("--soak-runs=")) {
      const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
      options.runs = static_cast<long>(std::atof(value) * (scale == nullptr ? 0.02 : std::atof(scale)));
    } else if (argument.starts_with("--seed=")) {
      options.seed = std::strtoul(value, nullptr, 10);
    } else if (argument.starts_with("--only=")) {
      options.only = std::atol(value);
    } else {
      options.folders.emplace_back(argument);
    }
  }
  return options;
}

std::vector<Bytes> read_corpus(const std::vector<std::string>& folders) {
  std::vector<std::filesystem::path> paths;
  for (const std::string& folder : folders) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

// One to eight small changes; later ones may undo earlier ones.
Bytes mutate(Bytes input, const std::vector<Bytes>& corpus, std::mt19937_64& random) {
  static constexpr std::string_view kPieces[] = {"{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 ",",
                                                 ":",
                                                 "\"",
                                                 "\\u0000",
                                                 "\\",
                                                 "0",
                                                 "-1",
                                                 "1e308",
                                                 "9223372036854775807",
                                                 "18446744073709551615",
                                                 "null",
                                                 "true",
                                                 "NaN",
                                                 "Infinity",
                                                 "\"dtype\"",
                                                 "\"shape\"",
                                                 "\"data_offsets\"",
                                                 "\"__metadata__\"",
                                                 "\"F32\"",
                                                 "\"BF16\"",
                                                 "\"a\":",
                                                 "\r\n",
                                                 "chunked",
                                                 "<tool_call>",
                                                 "</think>",
                                                 "[TOOL_CALLS]",
                                                 "\"name\":",
                                                 "\"arguments\":",
                                                 "&a *a",
                                                 "\xff",
                                                 "\xe2\x82"};
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  const auto at = [&](size_t i) { return input.begin() + static_cast<std::ptrdiff_t>(i); };
  for (size_t changes = 1 + below(8); changes > 0; --changes) {
    const size_t position = below(input.size() + 1);
    switch (below(7)) {
      case 0:  // flip a bit
        if (position < input.size()) input[position] ^= static_cast<uint8_t>(1U << below(8));
        break;
      case 1:  // set a byte
        if (position < input.size()) input[position] = static_cast<uint8_t>(random());
        break;
      case 2: {  // insert a piece of syntax
        const std::string_view piece = kPieces[below(std::size(kPieces))];
        input.insert(at(position), piece.begin(), piece.end());
        break;
      }
      case 3: {  // remove a stretch
        const size_t length = below(std::min<size_t>(16, input.size() - position) + 1);
        input.erase(at(position), at(position + length));
        break;
      }
      case 4: {  // repeat a stretch elsewhere
        const size_t length = below(std::min<size_t>(64, input.size() - position) + 1);
        const Bytes piece(at(position), at(position + length));
        input.insert(at(below(input.size() + 1)), piece.begin(), piece.end());
        break;
      }
      case 5: {  // the tail of another file
        const Bytes& other = corpus[below(corpus.size())];
        const size_t from = below(other.size() + 1);
        input.resize(position);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        break;
      }
      default: {  // another digit in a number
        const auto digit = std::find_if(at(position), input.end(), [](uint8_t c) { return c >= '0' && c <= '9'; });
        if (digit != input.end()) *digit = static_cast<uint8_t>('0' + below(10));
        break;
      }
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const std::vector<Bytes> corpus = read_corpus(options.folders);
  if (corpus.empty()) {
    std::fprintf(stderr, "no corpus: name a directory with at least one file\n");
    return 2;
  }
  long number = 0;
  const auto run = [&](const Bytes& input) {
    if (options.only < 0 || options.only == number) {
      // Not buffered: it is the last line when the target crashes.
      if (options.only >= 0 || number % 10'000 == 0) std::fprintf(stderr, "input %ld\n", number);
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    ++number;
  };
  for (const Bytes& input : corpus) {
    run(input);
    for (size_t length = 0; length < std::min<size_t>(input.size(), 2048); ++length) {
      run(Bytes(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(length)));
    }
  }
  for (long i = 0; i < options.runs; ++i) {
    std::mt19937_64 random(options.seed * 1'000'003 + static_cast<unsigned long>(i));
    run(mutate(corpus[random() % corpus.size()], corpus, random));
  }
  std::printf("%ld inputs\n", number);
  return 0;
}
