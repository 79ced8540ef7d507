// Records and shorthands that the registry's tests share.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "manager/registry.h"

namespace inferneo::testing {

inline ModelRecord model(const std::string& name, const std::string& version = "1") {
  ModelRecord record;
  record.id = {name, version};
  record.source = "models/" + name;
  record.created = 1'000'000;
  return record;
}

inline std::unique_ptr<Registry> open_registry(const std::string& path) {
  auto registry = Registry::open(path);
  EXPECT_TRUE(registry.ok()) << registry.error().message;
  return registry.ok() ? std::move(*registry) : nullptr;
}

inline RegistrySnapshot snapshot(const Registry& registry) {
  auto loaded = registry.load_all();
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  return loaded.ok() ? std::move(*loaded) : RegistrySnapshot();
}

// One of everything that a registry can hold.
inline void fill(Registry& registry) {
  ModelRecord full = model("org/chat", "1");
  full.revision = "main";
  full.format = ModelFormat::ONNX;
  full.settings = {{"max_model_len", "4096"}, {"dtype", "bf16"}};
  full.metadata = {{"owner", "J\xC3\xBCrgen"}, {"note", std::string(6000, 'n')}};
  full.pinned = true;
  full.keep_alive = 600;
  EXPECT_TRUE(registry.add(full).ok());
  EXPECT_TRUE(registry.add(model("org/chat", "2")).ok());
  EXPECT_TRUE(registry.add(model("org/chat", "3")).ok());
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(registry.add(model("small-" + std::to_string(i))).ok());
  EXPECT_TRUE(registry.set_policy("org/chat", {VersionPolicy::Kind::specific, {"1", "2"}}).ok());
  EXPECT_TRUE(registry.set_active("org/chat", "1").ok());
  EXPECT_TRUE(registry.set_alias("default", "org/chat").ok());
  EXPECT_TRUE(registry.set_alias("stable", "org/chat:1").ok());
  EXPECT_TRUE(registry.record_usage({{{"org/chat", "1"}, 1'700'000'000, 3}}).ok());
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace inferneo::testing
