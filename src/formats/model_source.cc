#include "formats/model_source.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/config/suggest.h"
#include "formats/hub_cache.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxNameBytes = 4096;
constexpr std::string_view kGraphEnding = ".onnx";

bool is_directory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

bool is_id_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

// One half of a repository id.
bool is_id_part(std::string_view part) {
  if (part.empty() || part.size() > 96 || !std::all_of(part.begin(), part.end(), is_id_character)) return false;
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  return !is_edge(part.front()) && !is_edge(part.back()) && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

// A branch, tag, commit or refs/pr/N: components that cannot climb.
bool is_revision(std::string_view revision) {
  if (revision.empty() || revision.size() > 200) return false;
  while (true) {
    const size_t slash = revision.find('/');
    const std::string_view part = revision.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || !std::all_of(part.begin(), part.end(), is_id_character)) {
      return false;
    }
    if (slash == std::string_view::npos) return true;
    revision.remove_prefix(slash + 1);
  }
}

bool climbs(std::string_view path) {
  for (const fs::path& part : fs::path(path)) {
    if (part == "..") return true;
  }
  return false;
}

bool looks_like_path(std::string_view name) {
  return name.starts_with('/') || name.starts_with("./") || name.starts_with("../") || name == "." || name == "..";
}

// The folder of a hub repository when `path` is one of its snapshots: its files link to ../../blobs.
std::string snapshot_repository(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error || real.parent_path().filename() != "snapshots") return {};
  const fs::path repository = real.parent_path().parent_path();
  return repository.filename().string().starts_with("models--") ? repository.string() : std::string();
}

Result<ModelSource> open_local(const std::string& name, const ModelSourceOptions& options) {
  std::vector<std::string> roots = options.roots;
  roots.push_back(options.hub_cache);
  std::string path = name;
  std::string file;
  if (name.ends_with(kGraphEnding) && !is_directory(name)) {
    const size_t slash = name.find_last_of('/');
    path = slash == std::string::npos ? "." : name.substr(0, slash + 1);
    file = name.substr(slash + 1);  // npos + 1 is 0
  }
  if (options.named_by_operator) {
    roots.push_back(path);
    roots.push_back(snapshot_repository(path));
  } else if (climbs(name)) {
    return make_error(ErrorCode::refused, fmt::format("model '{}': a path may not contain '..'", name), "path");
  }
  ASSIGN_OR_RETURN(ModelDirectory directory, ModelDirectory::open(name, path, roots));
  return ModelSource{std::move(directory), "", std::move(file)};
}

// The commit that a revision stands for in the cache, or empty.
Result<std::string> cached_commit(const std::string& name, const std::string& repository, const HubId& id,
                                  const ModelSourceOptions& options) {
  if (id.revision.find('/') == std::string::npos && is_directory(repository + "/snapshots/" + id.revision)) {
    return id.revision;
  }
  const std::string reference = "refs/" + id.revision;
  if (!exists(repository + "/" + reference)) return std::string();
  ASSIGN_OR_RETURN(const ModelDirectory folder, ModelDirectory::open(name, repository, {options.hub_cache}));
  ASSIGN_OR_RETURN(std::string commit, folder.read(reference, 256));
  while (!commit.empty() && (commit.back() == '\n' || commit.back() == '\r' || commit.back() == ' ')) commit.pop_back();
  if (commit.find('/') != std::string::npos || !is_revision(commit)) {
    return make_error(ErrorCode::malformed,
                      fmt::format("model '{}': {} in the hub cache is not a commit", name, reference));
  }
  return commit;
}

Result<ModelSource> open_cached(const std::string& name, const HubId& id, const ModelSourceOptions& options) {
  const auto missing = [&] {
    const std::string hint = options.named_by_operator ? no_directory_hint(name) : "";
    const std::string revision = id.revision == "main" ? "" : "@" + id.revision;
    return make_error(
        ErrorCode::not_found,
        fmt::format("model '{}' is neither a directory nor in the hub cache; download it with 'inferneo pull "
                    "{}{}', or give the path of its directory{}",
                    name, id.repository, revision, hint));
  };
  if (options.hub_cache.empty()) return missing();
  const std::string repository = options.hub_cache + "/" + hub::repository_folder(id.repository);
  ASSIGN_OR_RETURN(const std::string commit, cached_commit(name, repository, id, options));
  const std::string snapshot = repository + "/snapshots/" + commit;
  if (commit.empty() || !is_directory(snapshot)) return missing();
  ASSIGN_OR_RETURN(ModelDirectory directory, ModelDirectory::open(name, snapshot, {options.hub_cache}));
  return ModelSource{std::move(directory), commit, {}};
}

}  // namespace

std::string no_directory_hint(const std::string& name) {
  const fs::path path(name.substr(0, name.find('@')));
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::vector<std::string> directories;
  std::error_code error;
  for (fs::directory_iterator entry(parent, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code ignored;
    if (directories.size() < 1000 && entry->is_directory(ignored)) {
      directories.push_back(entry->path().filename().string());
    }
  }
  std::sort(directories.begin(), directories.end());
  const std::vector<std::string_view> known(directories.begin(), directories.end());
  const std::string_view nearest = nearest_word(path.filename().string(), known);
  std::string hint = "; there is no directory of that name here";
  if (!nearest.empty()) hint += fmt::format(", did you mean '{}'?", (path.parent_path() / nearest).string());
  return hint;
}

std::string hub_cache_directory(const HubEnvironment& environment) {
  if (!environment.hf_hub_cache.empty()) return environment.hf_hub_cache;
  if (!environment.hf_home.empty()) return environment.hf_home + "/hub";
  if (!environment.xdg_cache_home.empty()) return environment.xdg_cache_home + "/huggingface/hub";
  if (!environment.home.empty()) return environment.home + "/.cache/huggingface/hub";
  return {};
}

Result<HubId> parse_hub_id(std::string_view text) {
  const size_t at = text.find('@');
  const std::string_view repository = text.substr(0, at);
  const std::string_view revision = at == std::string_view::npos ? "main" : text.substr(at + 1);
  const size_t slash = repository.find('/');
  const bool valid = slash == std::string_view::npos
                         ? is_id_part(repository)
                         : is_id_part(repository.substr(0, slash)) && is_id_part(repository.substr(slash + 1));
  if (!valid || !is_revision(revision)) {
    return make_error(ErrorCode::invalid_argument, "not a hub id of the form org/name or org/name@revision");
  }
  return HubId{std::string(repository), std::string(revision)};
}

Result<ModelSource> resolve_model_source(const std::string& name, const ModelSourceOptions& options) {
  if (name.empty() || name.size() > kMaxNameBytes || name.find('\0') != std::string::npos) {
    return make_error(ErrorCode::invalid_argument, "a model is named by a path or a hub id", "model");
  }
  const Result<HubId> id = parse_hub_id(name);
  // Names from elsewhere say nothing about files outside the roots: whether such a path exists is not looked at.
  if (looks_like_path(name) || !id.ok()) {
    if (options.named_by_operator && !exists(name)) {
      return make_error(ErrorCode::not_found, fmt::format("model '{}': no such directory", name.substr(0, 200)));
    }
    return open_local(name, options);
  }
  if (exists(name) && (options.named_by_operator || is_directory(name))) {
    Result<ModelSource> local = open_local(name, options);
    if (local.ok() || options.named_by_operator) return local;
  }
  return open_cached(name, *id, options);
}

}  // namespace inferneo
