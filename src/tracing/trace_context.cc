#include "tracing/trace_context.h"

#include <algorithm>
#include <random>
#include <span>

namespace inferneo {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr size_t kParentLength = 55;  // of version 00
constexpr size_t kMaxMembers = 32;
constexpr size_t kMaxKey = 256;
constexpr size_t kMaxValue = 256;

std::string hex_of(std::span<const uint8_t> bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    text += kHexDigits[byte >> 4U];
    text += kHexDigits[byte & 15U];
  }
  return text;
}

// Lower case only, as the standard has it.
bool read_hex(std::string_view text, std::span<uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t high = kHexDigits.find(text[2 * i]);
    const size_t low = kHexDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    bytes[i] = static_cast<uint8_t>((high << 4U) | low);
  }
  return true;
}

void fill_random(std::span<uint8_t> bytes) {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t bits = generator();
    for (size_t k = i; k < std::min(i + 8, bytes.size()); ++k, bits >>= 8U) bytes[k] = static_cast<uint8_t>(bits);
  }
}

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A letter or digit first; a vendor's key may have one '@'.
bool is_state_key(std::string_view key) {
  if (key.empty() || key.size() > kMaxKey || !(is_lower(key.front()) || is_digit(key.front()))) return false;
  return std::count(key.begin(), key.end(), '@') <= 1 && std::all_of(key.begin(), key.end(), [](char c) {
           return is_lower(c) || is_digit(c) || c == '_' || c == '-' || c == '*' || c == '/' || c == '@';
         });
}

bool is_state_value(std::string_view value) {
  return !value.empty() && value.size() <= kMaxValue && value.back() != ' ' &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~' && c != ',' && c != '='; });
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

}  // namespace

std::string TraceId::hex() const { return hex_of(bytes); }
std::string SpanId::hex() const { return hex_of(bytes); }

TraceId new_trace_id() {
  TraceId id;
  do {
    fill_random(id.bytes);
  } while (id.is_zero());
  return id;
}

SpanId new_span_id() {
  SpanId id;
  do {
    fill_random(id.bytes);
  } while (id.is_zero());
  return id;
}

std::optional<TraceParent> parse_traceparent(std::string_view text) {
  if (text.size() < kParentLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  std::array<uint8_t, 1> version{};
  std::array<uint8_t, 1> flags{};
  TraceParent parent;
  if (!read_hex(text.substr(0, 2), version) || !read_hex(text.substr(3, 32), parent.trace.bytes) ||
      !read_hex(text.substr(36, 16), parent.span.bytes) || !read_hex(text.substr(53, 2), flags)) {
    return std::nullopt;
  }
  if (version[0] == 0xff || parent.trace.is_zero() || parent.span.is_zero()) return std::nullopt;
  if (text.size() > kParentLength && (version[0] == 0 || text[kParentLength] != '-')) return std::nullopt;
  parent.flags = flags[0] & (kSampledFlag | kRandomFlag);
  return parent;
}

std::string format_traceparent(const TraceParent& parent) {
  return "00-" + parent.trace.hex() + "-" + parent.span.hex() + "-" + hex_of({&parent.flags, 1});
}

bool is_tracestate(std::string_view text) {
  if (text.size() > kMaxTraceState) return false;
  std::array<std::string_view, kMaxMembers> keys;
  size_t members = 0;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view member = trimmed(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (member.empty()) continue;
    const size_t equals = member.find('=');
    if (equals == std::string_view::npos || members == kMaxMembers) return false;
    const std::string_view key = member.substr(0, equals);
    if (!is_state_key(key) || !is_state_value(member.substr(equals + 1))) return false;
    if (std::find(keys.begin(), keys.begin() + members, key) != keys.begin() + members) return false;
    keys[members++] = key;
  }
  return members > 0;
}

bool is_sampled(const TraceId& trace, double ratio) {
  if (!(ratio > 0.0)) return false;
  if (ratio >= 1.0) return true;
  constexpr double kRange = 72057594037927936.0;  // 2^56
  uint64_t random = 0;
  for (size_t i = 9; i < trace.bytes.size(); ++i) random = (random << 8U) | trace.bytes[i];
  return random >= static_cast<uint64_t>((1.0 - ratio) * kRange);
}

}  // namespace inferneo
