#include "formats/model_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "base/file_descriptor.h"
#include "formats/pickle.h"

namespace inferneo {
namespace {

// Empty when it does not exist.
std::string real_path(const std::string& path) {
  std::array<char, PATH_MAX> buffer;
  if (path.empty() || path.find('\0') != std::string::npos) return {};
  return ::realpath(path.c_str(), buffer.data()) == nullptr ? std::string() : std::string(buffer.data());
}

bool is_within(const std::string& path, const std::string& root) {
  if (root == "/") return true;
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

bool is_within_any(const std::string& path, const std::vector<std::string>& roots) {
  return std::any_of(roots.begin(), roots.end(), [&](const std::string& root) { return is_within(path, root); });
}

bool is_kernel_file_system(const std::string& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return true;
  return info.f_type == PROC_SUPER_MAGIC || info.f_type == SYSFS_MAGIC;
}

bool is_relative_below(std::string_view file) {
  while (true) {
    const size_t slash = file.find('/');
    if (!is_plain_file_name(file.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    file.remove_prefix(slash + 1);
  }
}

// What is shown of a name that may be hostile.
std::string shown(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 200)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text;
}

// `label` names the file in errors; `path` has been checked by the caller.
Result<std::string> read_regular_file(const std::string& path, const std::string& label, size_t max_bytes) {
  // O_NONBLOCK: a FIFO put in the file's place meanwhile must not hang the open; O_NOFOLLOW: nor a link lead elsewhere.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  const auto system_error = [&] {
    return make_error(ErrorCode::io_error, fmt::format("{}: cannot be read: {}", label, std::strerror(errno)));
  };
  const auto too_long = [&] {
    return make_error(ErrorCode::malformed, fmt::format("{}: larger than the limit of {} bytes", label, max_bytes));
  };
  if (fd.get() < 0) return system_error();
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error();
  if (!S_ISREG(info.st_mode)) return make_error(ErrorCode::refused, label + ": not a regular file");
  if (info.st_size > 0 && static_cast<uint64_t>(info.st_size) > max_bytes) return too_long();

  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error();
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

struct FormatRow {
  ModelFormat format;
  std::string_view name;
  bool (*matches)(const std::vector<std::string>& files);
};

bool any_ends_with(const std::vector<std::string>& files, std::string_view ending) {
  return std::any_of(files.begin(), files.end(), [&](const std::string& file) { return file.ends_with(ending); });
}
bool has(const std::vector<std::string>& files, std::string_view name) {
  return std::find(files.begin(), files.end(), name) != files.end();
}

// In order of preference: a directory that holds several is opened as the first. Hugging Face comes first because an
// exported ONNX or TensorRT model often keeps the original's config.json, and then has no safetensors beside it.
constexpr std::array kFormats = {
    FormatRow{ModelFormat::HuggingFace, "huggingface",
              [](const std::vector<std::string>& files) {
                return has(files, "config.json") && any_ends_with(files, ".safetensors");
              }},
    FormatRow{
        ModelFormat::ONNX, "onnx",
        [](const std::vector<std::string>& files) { return any_ends_with(files, ".onnx") || has(files, "onnx"); }},
    FormatRow{ModelFormat::TensorRT, "tensorrt",
              [](const std::vector<std::string>& files) {
                return any_ends_with(files, ".engine") || any_ends_with(files, ".plan");
              }},
};

}  // namespace

std::string_view model_format_name(ModelFormat format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row.name;
  }
  return "unknown";
}

Result<std::string> read_named_file(const std::string& path, const std::string& label, size_t max_bytes) {
  const std::string real = real_path(path);
  if (real.empty()) return make_error(ErrorCode::not_found, fmt::format("{}: {}: no such file", label, shown(path)));
  return read_regular_file(real, fmt::format("{}: {}", label, shown(path)), max_bytes);
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '/' && c != '\\';
  });
}

Result<ModelDirectory> ModelDirectory::open(std::string name, const std::string& path,
                                            const std::vector<std::string>& roots) {
  ModelDirectory directory;
  directory.name_ = shown(name);
  const auto fail = [&](ErrorCode code, std::string_view what) {
    return make_error(code, fmt::format("model '{}': {}", directory.name_, what));
  };
  directory.path_ = real_path(path);
  if (directory.path_.empty()) return fail(ErrorCode::not_found, "no such directory");
  for (const std::string& root : roots) {
    std::string real = real_path(root);
    if (!real.empty()) directory.roots_.push_back(std::move(real));
  }
  if (!is_within_any(directory.path_, directory.roots_)) {
    return fail(ErrorCode::refused, "outside the allowed model directories; add its directory to the configured roots");
  }
  struct stat info {};
  if (::stat(directory.path_.c_str(), &info) != 0) return fail(ErrorCode::io_error, std::strerror(errno));
  if (!S_ISDIR(info.st_mode)) {
    return fail(ErrorCode::refused, "not a directory; name the directory that holds config.json and the weights");
  }
  if (is_kernel_file_system(directory.path_)) return fail(ErrorCode::refused, "lies on a kernel file system");
  return directory;
}

Result<std::vector<std::string>> ModelDirectory::list() const {
  DIR* stream = ::opendir(path_.c_str());
  if (stream == nullptr) {
    return make_error(ErrorCode::io_error, fmt::format("model '{}': {}", name_, std::strerror(errno)));
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view file = entry->d_name;
    if (file == "." || file == "..") continue;
    if (names.size() == kMaxEntries) break;
    names.emplace_back(file);
  }
  ::closedir(stream);
  if (names.size() == kMaxEntries) {
    return make_error(ErrorCode::malformed,
                      fmt::format("model '{}': more than {} files in its directory", name_, kMaxEntries));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool ModelDirectory::contains(std::string_view file) const { return resolve(file).ok(); }

Result<std::string> ModelDirectory::resolve(std::string_view file) const {
  const std::string label = fmt::format("model '{}': {}", name_, shown(file));
  if (!is_relative_below(file)) {
    return make_error(ErrorCode::refused, label + ": not the name of a file within the model's directory");
  }
  const std::string real = real_path(path_ + "/" + std::string(file));
  if (real.empty()) return make_error(ErrorCode::not_found, label + ": no such file");
  if (!is_within_any(real, roots_)) {
    return make_error(ErrorCode::refused, label + ": a link that leaves the allowed model directories");
  }
  struct stat info {};
  if (::stat(real.c_str(), &info) != 0) return make_error(ErrorCode::io_error, label + ": " + std::strerror(errno));
  if (!S_ISREG(info.st_mode) || is_kernel_file_system(real)) {
    return make_error(ErrorCode::refused, label + ": not a regular file");
  }
  return real;
}

Result<std::string> ModelDirectory::read(std::string_view file, size_t max_bytes) const {
  ASSIGN_OR_RETURN(const std::string path, resolve(file));
  return read_regular_file(path, fmt::format("model '{}': {}", name_, shown(file)), max_bytes);
}

Result<std::shared_ptr<const MappedFile>> ModelDirectory::map(MemoryLedger& ledger, const std::string& model,
                                                              std::string_view file) const {
  ASSIGN_OR_RETURN(const std::string path, resolve(file));
  return MappedFile::open(ledger, model, path);
}

Result<std::shared_ptr<const MappedFile>> ModelDirectory::map_front(MemoryLedger& ledger, const std::string& model,
                                                                    std::string_view file, size_t readable) const {
  ASSIGN_OR_RETURN(const std::string path, resolve(file));
  return MappedFile::open_front(ledger, model, path, readable);
}

Result<bool> ModelDirectory::has_format(ModelFormat format) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, list());
  return std::any_of(kFormats.begin(), kFormats.end(),
                     [&](const FormatRow& row) { return row.format == format && row.matches(files); });
}

Result<ModelFormat> ModelDirectory::detect_format() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, list());
  for (const FormatRow& row : kFormats) {
    if (row.matches(files)) return row.format;
  }
  const auto fail = [&](ErrorCode code, std::string_view what) {
    return make_error(code, fmt::format("model '{}': {}", name_, what));
  };
  if (std::any_of(files.begin(), files.end(), [](const std::string& file) { return is_pickle_name(file); })) {
    return fail(ErrorCode::refused,
                "its weights are Python pickles (.bin, .pt), which can run code when they are read, so they are never "
                "opened; convert the model to safetensors (in transformers: model.save_pretrained(path, "
                "safe_serialization=True))");
  }
  if (any_ends_with(files, ".gguf"))
    return fail(ErrorCode::unsupported, "GGUF files are not supported; use safetensors");
  if (any_ends_with(files, ".safetensors")) return fail(ErrorCode::not_found, "it has no config.json");
  return fail(ErrorCode::not_found, "neither config.json with *.safetensors, nor *.onnx, nor *.engine is there");
}

}  // namespace inferneo
