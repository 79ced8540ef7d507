// Several models in one program and one memory budget: each is loaded when it is first asked, and the one that has been
// idle longest makes room.
//
//   build/release/examples/many_models models/inferneo-story models/inferneo-code
#include <cstdio>
#include <filesystem>

#include "inferneo/model_manager.h"

namespace {

// False: the error has been printed.
bool ask(inferneo::ModelManager& manager, const std::string& id) {
  const auto lease = manager.acquire(id).get();  // while it lives, nothing takes the model's place
  if (!lease.ok()) {
    std::fprintf(stderr, "%s: %s\n", id.c_str(), lease.error().message.c_str());
    return false;
  }
  inferneo::SamplingParams sampling;
  sampling.max_tokens = 40;
  const auto result = lease->generate("Once upon a time", sampling).get();
  if (!result.ok()) {
    std::fprintf(stderr, "%s: %s\n", id.c_str(), result.error().message.c_str());
    return false;
  }
  std::printf("%s: %s\n\n", id.c_str(), result->samples[0].text.c_str());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  inferneo::ModelManager manager({.max_models = 5, .max_memory_gb = 1.0, .enable_lazy_loading = true});
  if (!manager.status().ok()) {
    std::fprintf(stderr, "%s\n", manager.status().error().message.c_str());
    return 1;
  }
  for (int i = 1; i < argc; ++i) {
    const std::string name = std::filesystem::path(argv[i]).filename().string();
    const auto id = manager.register_model({.name = name, .version = "1.0", .path = argv[i]});
    if (!id.ok()) {
      std::fprintf(stderr, "%s: %s\n", argv[i], id.error().message.c_str());
      return 1;
    }
    if (!ask(manager, *id)) return 1;
  }
  for (const inferneo::ModelInfo& model : manager.models()) {
    std::printf("%-28s %-9s %8.1f MiB, loaded in %.3f s\n", model.id.c_str(), model.state.c_str(),
                static_cast<double>(model.memory_bytes) / 1048576.0, model.load_seconds);
  }
  return 0;
}
