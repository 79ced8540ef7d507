// Python pickles run code when they are read, so they are recognised by their bytes and refused, never parsed.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"

namespace inferneo {

// refused, with what to do instead, when the bytes are a pickle, a zip archive as torch.save writes it, or one of the
// older torch tar archives; ok for everything else.
Status refuse_pickle(std::span<const std::byte> bytes, std::string_view file);

// True for the names under which pickled weights are kept: .bin, .pt, .pth, .pkl, .pickle, .ckpt.
bool is_pickle_name(std::string_view file);

}  // namespace inferneo
