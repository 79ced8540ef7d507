// Whatever the file, the configuration is read or refused with an error that says where.
#include <cstdint>
#include <string>

#include "base/config/yaml_file.h"
#include "require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto file = inferneo::parse_config_yaml(text, "f.yaml");
  if (!file.ok()) {
    require(file.error().message.starts_with("f.yaml"), "an error says where");
    require(file.error().message.size() < 2000, "an error fits a line");
    return 0;
  }
  for (const auto& entry : file->fields) {
    require(entry.field != nullptr && entry.where.starts_with("f.yaml"), "an entry is of a field, and says where");
  }
  for (const auto& entry : file->models) {
    require(!entry.source.empty() && entry.where.starts_with("f.yaml"),
            "a model has a source, and says where it stands");
  }
  return 0;
}
