// Keeps the spans that it is given, for tests that look at them.
#pragma once

#include <algorithm>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tracing/span.h"

namespace inferneo::testing {

class SpanBook final : public SpanSink {
 public:
  void add(std::vector<Span> spans) override {
    const std::lock_guard lock(mutex_);
    for (Span& span : spans) spans_.push_back(std::move(span));
  }
  SpanCounts counts() const override {
    const std::lock_guard lock(mutex_);
    return {.exported = spans_.size()};
  }
  std::vector<Span> spans() const {
    const std::lock_guard lock(mutex_);
    return spans_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Span> spans_;
};

inline const SpanValue* value_of(const Span& span, std::string_view key) {
  const auto found = std::find_if(span.attributes.begin(), span.attributes.end(),
                                  [&](const SpanAttribute& attribute) { return attribute.key == key; });
  return found == span.attributes.end() ? nullptr : &found->value;
}
inline std::string text_of(const Span& span, std::string_view key) {
  const SpanValue* const value = value_of(span, key);
  return value == nullptr ? "(none)" : std::get<std::string>(*value);
}
inline int64_t number_of(const Span& span, std::string_view key) {
  const SpanValue* const value = value_of(span, key);
  return value == nullptr ? -1 : std::get<int64_t>(*value);
}

}  // namespace inferneo::testing
