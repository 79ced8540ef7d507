#include "formats/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace inferneo {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::string_view prefix) {
  return bytes.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), bytes.begin(), [](char expected, std::byte got) {
           return std::byte(static_cast<unsigned char>(expected)) == got;
         });
}

// PROTO, then a protocol number: how every pickle since protocol 2 begins.
bool is_bare_pickle(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x80} && bytes[1] >= std::byte{2} && bytes[1] <= std::byte{5};
}

// torch.save writes a zip whose members include <name>/data.pkl. Member names stand uncompressed at the front of the
// file and in the directory at its end; a look at both ends does not depend on the archive being well formed.
bool is_torch_zip(std::span<const std::byte> bytes) {
  if (!starts_with(bytes, "PK\x03\x04")) return false;
  constexpr size_t kLook = size_t{64} << 10;
  constexpr std::string_view kMember = "data.pkl";
  const auto holds = [&](std::span<const std::byte> part) {
    const std::string_view text(reinterpret_cast<const char*>(part.data()), part.size());
    return text.find(kMember) != std::string_view::npos;
  };
  return holds(bytes.first(std::min(kLook, bytes.size()))) || holds(bytes.last(std::min(kLook, bytes.size())));
}

bool is_torch_tar(std::span<const std::byte> bytes) {
  return bytes.size() > 262 && starts_with(bytes.subspan(257), "ustar");
}

}  // namespace

Status refuse_pickle(std::span<const std::byte> bytes, std::string_view file) {
  if (!is_bare_pickle(bytes) && !is_torch_zip(bytes) && !is_torch_tar(bytes)) return ok_status();
  return make_error(ErrorCode::refused,
                    fmt::format("{}: a Python pickle, which can run code when it is read, so it is never opened; "
                                "convert the model to safetensors (in transformers: "
                                "model.save_pretrained(path, safe_serialization=True))",
                                file));
}

bool is_pickle_name(std::string_view file) {
  constexpr std::array<std::string_view, 6> kEndings = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"};
  return std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view ending) { return file.ends_with(ending); });
}

}  // namespace inferneo
