#include "formats/checkpoint.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "formats/json.h"
#include "formats/pickle.h"

namespace inferneo {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr JsonLimits kIndexLimits = {.max_bytes = size_t{64} << 20, .max_values = 1'000'000, .max_depth = 8};
constexpr size_t kMaxShards = 4096;
constexpr size_t kUsualHeaderBytes = size_t{64} << 10;

using WeightMap = std::map<std::string, std::string>;  // tensor -> shard

Result<WeightMap> parse_index(std::string_view text) {
  const auto fail = [](const std::string& what) {
    return make_error(ErrorCode::malformed, fmt::format("{}: {}", kIndexFile, what));
  };
  ASSIGN_OR_RETURN(const nlohmann::json root, parse_json(text, kIndexFile, kIndexLimits));
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
    return fail("weight_map must be an object");
  }
  WeightMap map;
  for (const auto& [tensor, shard] : root["weight_map"].items()) {
    if (!shard.is_string()) return fail(fmt::format("the shard of {} must be a string", tensor.substr(0, 120)));
    const auto& name = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(name)) {
      return make_error(ErrorCode::refused,
                        fmt::format("{}: a shard must be a file in the model's directory, and the one "
                                    "of {} is not",
                                    kIndexFile, tensor.substr(0, 120)));
    }
    map.emplace(tensor, name);
  }
  if (map.empty()) return fail("weight_map is empty");
  return map;
}

// The file to open when neither the usual name nor an index is there.
Result<std::string> only_safetensors_file(const ModelDirectory& directory) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, directory.list());
  std::vector<std::string> found;
  for (const std::string& file : files) {
    if (file.ends_with(".safetensors")) found.push_back(file);
  }
  if (found.size() == 1) return found.front();
  if (found.size() > 1) {
    return make_error(ErrorCode::not_found, fmt::format("model '{}': {} *.safetensors files, but no {} that says which "
                                                        "tensor is where",
                                                        directory.name(), found.size(), kIndexFile));
  }
  // Says what to do about pickles when those are there.
  if (const Result<ModelFormat> format = directory.detect_format(); !format.ok()) return format.error();
  return make_error(ErrorCode::not_found, fmt::format("model '{}': no *.safetensors file", directory.name()));
}

// A shard whose header, and no more, can be read. What a broken header claims is checked by who parses it.
Result<std::shared_ptr<const MappedFile>> map_header(MemoryLedger& ledger, const std::string& model,
                                                     const ModelDirectory& directory, const std::string& name) {
  ASSIGN_OR_RETURN(auto mapping, directory.map_front(ledger, model, name, kUsualHeaderBytes));
  const size_t size = SafetensorsFile::header_size(mapping->bytes());
  if (size <= kUsualHeaderBytes) return mapping;
  mapping.reset();
  return directory.map_front(ledger, model, name, size);
}

}  // namespace

Result<Checkpoint> Checkpoint::open(MemoryLedger& ledger, const std::string& model, const ModelDirectory& directory) {
  return open_shards(ledger, model, directory, false);
}

Result<Checkpoint> Checkpoint::open_headers(MemoryLedger& ledger, const std::string& model,
                                            const ModelDirectory& directory) {
  return open_shards(ledger, model, directory, true);
}

Result<Checkpoint> Checkpoint::open_shards(MemoryLedger& ledger, const std::string& model,
                                           const ModelDirectory& directory, bool headers_only) {
  Checkpoint checkpoint;
  if (!directory.contains(kSingleFile) && directory.contains(kIndexFile)) {
    ASSIGN_OR_RETURN(const std::string text, directory.read(kIndexFile, kIndexLimits.max_bytes));
    ASSIGN_OR_RETURN(const WeightMap map, parse_index(text));
    std::set<std::string> names;
    for (const auto& [tensor, shard] : map) names.insert(shard);
    if (names.size() > kMaxShards) {
      return make_error(ErrorCode::malformed, fmt::format("{}: more than {} shards", kIndexFile, kMaxShards));
    }
    for (const std::string& name : names) {
      RETURN_IF_ERROR(checkpoint.add_shard(ledger, model, directory, name, headers_only));
    }
    for (const auto& [tensor, shard] : map) {
      if (checkpoint.find_shard(shard)->file.find(tensor) != nullptr) continue;
      return make_error(ErrorCode::malformed,
                        fmt::format("{}: tensor {} is not in {}", kIndexFile, tensor.substr(0, 120), shard));
    }
  } else {
    std::string name(kSingleFile);
    if (!directory.contains(kSingleFile)) {
      // A link out of the roots or a FIFO under the usual name is reported as such.
      if (Result<std::string> path = directory.resolve(kSingleFile);
          !path.ok() && path.error().code != ErrorCode::not_found) {
        return path.error();
      }
      ASSIGN_OR_RETURN(name, only_safetensors_file(directory));
    }
    RETURN_IF_ERROR(checkpoint.add_shard(ledger, model, directory, name, headers_only));
  }
  RETURN_IF_ERROR(checkpoint.index_tensors());
  return checkpoint;
}

Status Checkpoint::add_shard(MemoryLedger& ledger, const std::string& model, const ModelDirectory& directory,
                             const std::string& name, bool headers_only) {
  auto shard = std::make_unique<Shard>();
  shard->name = name;
  if (headers_only) {
    ASSIGN_OR_RETURN(shard->mapping, map_header(ledger, model, directory, name));
  } else {
    ASSIGN_OR_RETURN(shard->mapping, directory.map(ledger, model, name));
  }
  ASSIGN_OR_RETURN(shard->file, SafetensorsFile::parse(shard->mapping->bytes(), name));
  shards_.push_back(std::move(shard));
  return ok_status();
}

Status Checkpoint::index_tensors() {
  for (const auto& shard : shards_) {
    for (const SafetensorsTensor& tensor : shard->file.tensors()) {
      by_name_.push_back(&tensor);
      total_bytes_ += tensor.bytes.size();
    }
  }
  std::sort(by_name_.begin(), by_name_.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                        [](const auto* a, const auto* b) { return a->name == b->name; });
  if (twice == by_name_.end()) return ok_status();
  return make_error(ErrorCode::malformed,
                    fmt::format("tensor {} is in two shards of the model", (*twice)->name.substr(0, 120)));
}

const Checkpoint::Shard* Checkpoint::find_shard(std::string_view name) const {
  for (const auto& shard : shards_) {
    if (shard->name == name) return shard.get();
  }
  return nullptr;
}

const SafetensorsTensor* Checkpoint::find(std::string_view name) const {
  const auto it =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [](const SafetensorsTensor* tensor, std::string_view key) { return tensor->name < key; });
  return it != by_name_.end() && (*it)->name == name ? *it : nullptr;
}

std::vector<std::string> Checkpoint::shards() const {
  std::vector<std::string> names;
  for (const auto& shard : shards_) names.push_back(shard->name);
  return names;
}

size_t Checkpoint::file_bytes() const {
  size_t bytes = 0;
  for (const auto& shard : shards_) bytes += shard->mapping->bytes().size();
  return bytes;
}

size_t Checkpoint::booked_bytes() const {
  size_t bytes = 0;
  for (const auto& shard : shards_) bytes += shard->mapping->booked();
  return bytes;
}

bool Checkpoint::truncated() const {
  return std::any_of(shards_.begin(), shards_.end(), [](const auto& shard) { return shard->mapping->truncated(); });
}

void Checkpoint::forget(const SafetensorsTensor& tensor) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(tensor.bytes.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(tensor.bytes.data()) + tensor.bytes.size()) / page * page;
  if (end <= begin) return;
  // A read-only mapping of a file: what goes is a copy. Failing costs memory and nothing else.
  (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace inferneo
