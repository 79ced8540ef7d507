// What the tests of routing share: a view whose answers are set, and shorthands.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "routing/condition.h"

namespace inferneo {

struct FakeView final : RoutingView {
  std::map<std::string, std::string, std::less<>> headers;
  std::optional<int64_t> tokens;
  std::map<std::string, double, std::less<>> loads;
  std::vector<std::string> in_memory;
  int minute = 0;
  mutable int asked = 0;  // how often anything was asked

  std::string_view header(std::string_view name) const override {
    ++asked;
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
  std::optional<int64_t> prompt_tokens() const override {
    ++asked;
    return tokens;
  }
  std::optional<double> load(std::string_view model) const override {
    ++asked;
    const auto found = loads.find(model);
    return found == loads.end() ? std::nullopt : std::optional<double>(found->second);
  }
  bool loaded(std::string_view model) const override {
    ++asked;
    return std::find(in_memory.begin(), in_memory.end(), model) != in_memory.end();
  }
  int minute_of_day() const override {
    ++asked;
    return minute;
  }
};

inline Condition must_parse(std::string_view text) {
  auto condition = Condition::parse(text);
  if (!condition.ok()) ADD_FAILURE() << condition.error().message;
  return condition.ok() ? *condition : *Condition::parse("false");
}

inline RequestFacts prompt_facts(std::string_view prompt) { return {.prompt = prompt}; }

}  // namespace inferneo
