// The known word nearest to a misspelt one, for "did you mean" in errors.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace inferneo {

// Edit distance with '-', '_' and case taken as equal. Empty when nothing is near enough to be meant.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> known);
// ", did you mean 'x'?" or nothing.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> known);

}  // namespace inferneo
