#include "engine/kv_key.h"

#include <openssl/evp.h>

#include <bit>
#include <cstring>
#include <vector>

#include "base/result.h"

namespace inferneo {
namespace {

static_assert(std::endian::native == std::endian::little, "keys are of little-endian tokens");

// Bytes in front of what is hashed are never those of the other kind: a child begins with a key, which nobody can
// choose.
KvKey sha256_of(std::span<const uint8_t> front, std::span<const Token> tokens) {
  std::vector<uint8_t> bytes(front.size() + tokens.size_bytes());
  if (!front.empty()) std::memcpy(bytes.data(), front.data(), front.size());
  if (!tokens.empty()) std::memcpy(bytes.data() + front.size(), tokens.data(), tokens.size_bytes());
  KvKey key{};
  const int hashed = EVP_Digest(bytes.data(), bytes.size(), key.data(), nullptr, EVP_sha256(), nullptr);
  INFERNEO_CHECK(hashed == 1, "SHA-256 is not there");
  return key;
}

}  // namespace

KvKey kv_root_key(std::string_view content, std::span<const Token> salt) {
  constexpr std::string_view kKind = "inferneo kv root\n";
  std::vector<uint8_t> front(kKind.begin(), kKind.end());
  front.insert(front.end(), content.begin(), content.end());
  front.push_back(0);  // no content key has one, so that nothing of it can be taken for the salt
  return sha256_of(front, salt);
}

KvKey kv_child_key(const KvKey& parent, std::span<const Token> tokens) { return sha256_of(parent, tokens); }

}  // namespace inferneo
