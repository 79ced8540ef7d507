#include "formats/onnx/own_graphs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/file_descriptor.h"
#include "formats/content_key.h"

namespace inferneo {
namespace {

// Our graphs have their weights beside them; a larger one need not be hashed to know that it is none.
constexpr size_t kMostBytes = size_t{256} << 20;

Error cannot_keep(const std::string& what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error, fmt::format("{}: {}", what, strerror(error)));
}

}  // namespace

OwnGraphs::OwnGraphs(const std::string& home) : folder_(home.empty() ? std::string() : home + "/onnx-graphs") {}

std::string OwnGraphs::entry(std::span<const std::byte> graph) const {
  return folder_ + "/" + hash_text({reinterpret_cast<const char*>(graph.data()), graph.size()});
}

bool OwnGraphs::contains(std::span<const std::byte> graph) const {
  if (folder_.empty() || graph.size() > kMostBytes || ::access(folder_.c_str(), X_OK) != 0) return false;
  struct stat info {};
  return ::lstat(entry(graph).c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

Status OwnGraphs::add(std::span<const std::byte> graph) const {
  if (folder_.empty() || graph.size() > kMostBytes) return ok_status();
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) return cannot_keep(folder_, error.value());
  const std::string path = entry(graph);
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  return file.get() < 0 ? Status(cannot_keep(path, errno)) : ok_status();
}

}  // namespace inferneo
