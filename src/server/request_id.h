// Names for requests and tool calls: random, not guessable from one another's, no secret in them.
#pragma once

#include <string>
#include <string_view>

namespace inferneo {

std::string random_id(std::string_view prefix, size_t length);  // letters and digits; thread-safe
std::string new_request_id();

// A client's own x-request-id is taken when it is 1 to 128 letters, digits, '-', '_', '.' or ':'.
bool is_sane_request_id(std::string_view id);

}  // namespace inferneo
