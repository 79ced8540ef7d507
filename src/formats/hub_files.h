// Which files of a repository are downloaded. Pure; names come from a server and are believed only after a check.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace inferneo::hub {

inline constexpr size_t kMaxListedFiles = 100'000;  // of a repository
inline constexpr size_t kMaxPulledFiles = 5'000;
inline constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// Relative, of few plain components: nothing that climbs, no backslashes or control characters.
bool is_repository_path(std::string_view path);

// What serving needs: configuration, tokenizer, template, and weights in safetensors; of sharded weights the index
// only, add_shards() knows the rest. refused: pickles only, or a name that is no repository path; not_found,
// unsupported.
Result<std::vector<std::string>> select_serving_files(std::span<const std::string> listed);
// Those that match one of the globs, in which '*' stands for slashes too. Never pickles. not_found, refused.
Result<std::vector<std::string>> select_matching_files(std::span<const std::string> listed,
                                                       std::span<const std::string> globs);
// Adds the shards that the index names. malformed; not_found for one that is not listed; refused for its name.
Status add_shards(std::string_view index, std::span<const std::string> listed, std::vector<std::string>& selected);

}  // namespace inferneo::hub
