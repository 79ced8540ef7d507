// Calling the Rust library: outputs collected into C++ containers, codes turned into Status. Private to this room.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "text/rust_text.h"

namespace inferneo::rust_text {

inline Slice slice_of(std::string_view text) { return {text.data(), text.size()}; }
inline Slice slice_of(std::span<const Token> tokens) { return {tokens.data(), tokens.size()}; }

// Collects one output.
class Collector {
 public:
  Output output() { return {&Collector::append, this}; }
  std::string take_text() { return std::move(bytes_); }
  std::vector<Token> take_tokens() const {
    std::vector<Token> tokens(bytes_.size() / sizeof(Token));
    if (!tokens.empty()) std::memcpy(tokens.data(), bytes_.data(), tokens.size() * sizeof(Token));
    return tokens;
  }
  // What a return code means; the message is what was collected.
  Status status(int32_t code) {
    if (code == kOk) return ok_status();
    return make_error(to_error_code(code), std::move(bytes_));
  }

 private:
  static void append(void* context, const uint8_t* data, size_t len) {
    if (len != 0) static_cast<Collector*>(context)->bytes_.append(reinterpret_cast<const char*>(data), len);
  }
  static ErrorCode to_error_code(int32_t code) {
    switch (code) {
      case kInvalidArgument:
        return ErrorCode::invalid_argument;
      case kMalformed:
        return ErrorCode::malformed;
      case kUnsupported:
        return ErrorCode::unsupported;
      case kPayloadTooLarge:
        return ErrorCode::payload_too_large;
      default:
        return ErrorCode::internal;
    }
  }

  std::string bytes_;
};

}  // namespace inferneo::rust_text
