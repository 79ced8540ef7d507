// The engine inside a program of your own: load a model, print a completion as it comes, then its numbers.
//
//   build/release/examples/basic_usage models/inferneo-story "Once upon a time"
#include <cstdio>
#include <string>

#include "inferneo/engine.h"

int main(int argc, char** argv) {
  const std::string model = argc > 1 ? argv[1] : "models/inferneo-story";
  const std::string prompt = argc > 2 ? argv[2] : "Once upon a time";

  inferneo::EngineConfig config;
  config.model = {model};
  inferneo::InferneoEngine engine(config);
  if (const inferneo::Status status = engine.start(); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return 1;
  }

  inferneo::SamplingParams sampling;
  sampling.temperature = 0.8F;
  sampling.max_tokens = 120;
  auto future = engine.generate_stream(prompt, sampling, [](int, std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  const auto result = future.get();
  if (!result.ok()) {
    std::fprintf(stderr, "\n%s\n", result.error().message.c_str());
    return 1;
  }
  std::printf("\n\n%d tokens after %.1f ms to the first, %.2f s in all\n", result->completion_tokens,
              result->time_to_first_token * 1e3, result->total_time);
  return 0;
}
