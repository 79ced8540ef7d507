// Times and sizes as people read them. Pure; numbers have a decimal dot whatever the locale.
#pragma once

#include <cstdint>
#include <string>

namespace inferneo {

std::string size_text(uint64_t bytes);      // "512 bytes", "412 MiB", "1.25 GiB"
std::string duration_text(double seconds);  // "0.35 s", "12 s", "4 min", "3 h", "2 days"
std::string age_text(int64_t seconds);      // "just now", "12 s ago", "3 min ago", "5 h ago", "2 days ago"

}  // namespace inferneo
