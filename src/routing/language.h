// The programming language of a text, where it can be told cheaply: the tag of a fenced code block, else a shebang
// line, else the beginning of a line that no prose and no other language has. One pass over the first 64 KiB.
#pragma once

#include <span>
#include <string_view>

namespace inferneo {

// A name out of language_names(), or empty.
std::string_view detect_language(std::string_view text);

std::span<const std::string_view> language_names();
// The language that a tag or short name means, in any case: "py" is "python", "c++" is "cpp". Empty: none that is
// known.
std::string_view language_of_tag(std::string_view tag);

}  // namespace inferneo
