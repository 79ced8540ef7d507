#include "formats/hub_files.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "formats/json.h"
#include "formats/model_directory.h"
#include "formats/pickle.h"

namespace inferneo::hub {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kWeights = ".safetensors";
constexpr size_t kMaxPathBytes = 1024;
constexpr size_t kMaxComponents = 16;
constexpr JsonLimits kIndexLimits = {.max_bytes = size_t{64} << 20, .max_values = 1'000'000, .max_depth = 8};

bool has(std::span<const std::string> files, std::string_view name) {
  return std::find(files.begin(), files.end(), name) != files.end();
}

bool is_text_file_to_serve(std::string_view name) {
  return name == "config.json" || name == "generation_config.json" || name == "special_tokens_map.json" ||
         name.starts_with("chat_template") || (name.starts_with("tokenizer") && name.ends_with(".json"));
}

std::string printable(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 120)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text;
}

Status check_names(std::span<const std::string> names) {
  for (const std::string& name : names) {
    if (is_repository_path(name)) continue;
    return make_error(ErrorCode::refused,
                      fmt::format("its list of files holds '{}', which is no name of a file in it", printable(name)));
  }
  if (names.size() > kMaxPulledFiles) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{} of its files would be needed, the limit is {}", names.size(), kMaxPulledFiles));
  }
  return ok_status();
}

// No safetensors: what there is instead, and what can be done about it.
Error no_weights(std::span<const std::string> listed) {
  const auto any = [&](auto wanted) { return std::any_of(listed.begin(), listed.end(), wanted); };
  if (any([](const std::string& name) { return is_pickle_name(name); })) {
    return make_error(ErrorCode::refused,
                      "its weights are Python pickles only (.bin, .pt), which can run code when they are read, so they "
                      "are never downloaded; take a model that has safetensors, or convert this one (in transformers: "
                      "model.save_pretrained(path, safe_serialization=True)) and give its path");
  }
  if (any([](const std::string& name) { return name.ends_with(".gguf"); })) {
    return make_error(ErrorCode::unsupported,
                      "it has GGUF files only; take the model that it was made from, which has "
                      "safetensors");
  }
  return make_error(ErrorCode::not_found,
                    "it has no *.safetensors files, so there is nothing to serve; --files fetches "
                    "others");
}

// The weights that opening the model would take: the single file before the index, as in Checkpoint.
Result<std::string> weights_to_serve(std::span<const std::string> listed) {
  if (has(listed, kSingleFile)) return std::string(kSingleFile);
  if (has(listed, kIndexFile)) return std::string(kIndexFile);
  std::vector<std::string> found;
  for (const std::string& name : listed) {
    if (name.ends_with(kWeights) && name.find('/') == std::string::npos) found.push_back(name);
  }
  if (found.empty()) return no_weights(listed);
  if (found.size() == 1) return found.front();
  return make_error(ErrorCode::not_found,
                    fmt::format("it has {} *.safetensors files, but no {} that says which tensor is where; --files "
                                "fetches those that you name",
                                found.size(), kIndexFile));
}

}  // namespace

bool is_repository_path(std::string_view path) {
  if (path.size() > kMaxPathBytes) return false;
  for (size_t i = 0; i < kMaxComponents; ++i) {
    const size_t slash = path.find('/');
    if (!is_plain_file_name(path.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
  return false;
}

Result<std::vector<std::string>> select_serving_files(std::span<const std::string> listed) {
  std::vector<std::string> selected;
  for (const std::string& name : listed) {
    if (is_text_file_to_serve(name) && name.find('/') == std::string::npos) selected.push_back(name);
  }
  ASSIGN_OR_RETURN(const std::string weights, weights_to_serve(listed));
  if (!has(selected, "config.json")) {
    return make_error(ErrorCode::not_found,
                      "it has no config.json, so it is no model that can be served; --files "
                      "fetches single files");
  }
  selected.push_back(weights);
  RETURN_IF_ERROR(check_names(selected));
  return selected;
}

Result<std::vector<std::string>> select_matching_files(std::span<const std::string> listed,
                                                       std::span<const std::string> globs) {
  std::vector<std::string> selected;
  bool pickles = false;
  for (const std::string& name : listed) {
    const auto matches = [&](const std::string& glob) { return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0; };
    if (!std::any_of(globs.begin(), globs.end(), matches)) continue;
    if (is_pickle_name(name)) {
      pickles = true;
    } else {
      selected.push_back(name);
    }
  }
  if (selected.empty() && pickles) {
    return make_error(ErrorCode::refused,
                      "only Python pickles match, which can run code when they are read, so they "
                      "are never downloaded");
  }
  if (selected.empty()) return make_error(ErrorCode::not_found, "none of its files matches");
  RETURN_IF_ERROR(check_names(selected));
  return selected;
}

Status add_shards(std::string_view index, std::span<const std::string> listed, std::vector<std::string>& selected) {
  ASSIGN_OR_RETURN(const nlohmann::json root, parse_json(index, kIndexFile, kIndexLimits));
  const auto fail = [](ErrorCode code, const std::string& what) {
    return make_error(code, fmt::format("{}: {}", kIndexFile, what));
  };
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
    return fail(ErrorCode::malformed, "weight_map must be an object");
  }
  const std::set<std::string_view> known(listed.begin(), listed.end());
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : root["weight_map"].items()) {
    if (!shard.is_string()) return fail(ErrorCode::malformed, "a shard must be a string");
    const auto& name = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(name) || !name.ends_with(kWeights)) {
      return fail(ErrorCode::refused, fmt::format("'{}' is no *.safetensors file beside it", printable(name)));
    }
    if (known.find(name) == known.end()) {
      return fail(ErrorCode::not_found, fmt::format("names {}, which is not on the hub", printable(name)));
    }
    shards.insert(name);
  }
  if (shards.empty()) return fail(ErrorCode::malformed, "weight_map is empty");
  selected.insert(selected.end(), shards.begin(), shards.end());
  return check_names(selected);
}

}  // namespace inferneo::hub
