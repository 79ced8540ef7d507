// What the content of a KV block is called outside of this process: SHA-256, chained from block to block.
//
// A root stands for a model's content and a salt; every further key for the whole sequence of tokens up to the end of
// its block. Equal keys therefore mean equal content, whoever chose the tokens: nobody can make two prefixes collide.
// Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "inferneo/sampling_params.h"

namespace inferneo {

using KvKey = std::array<uint8_t, 32>;

// `content` names all that the bytes of a block depend on besides its tokens (ModelRunner::content_key).
KvKey kv_root_key(std::string_view content, std::span<const Token> salt);
KvKey kv_child_key(const KvKey& parent, std::span<const Token> tokens);

}  // namespace inferneo
