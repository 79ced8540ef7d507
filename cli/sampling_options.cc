#include "cli/sampling_options.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/config/suggest.h"

namespace inferneo {
namespace {

template <typename T>
bool parse(std::string_view text, T min, T max, T& value) {
  T parsed{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(parsed)) return false;
  }
  if (parsed < min || parsed > max) return false;
  value = parsed;
  return true;
}

std::string shown(float value, bool set) { return set ? fmt::format("{}", value) : "the model's"; }

using C = SamplingChoice;
using S = std::string_view;
constexpr int kMaxTokens = 1 << 24;
constexpr std::array kSamplingOptions = {
    SamplingOption{
        "max_tokens", "--max-tokens", "N", "Longest answer in tokens [the context's end]", "a whole number from 1",
        [](C& c, S v) {
          int value = 0;
          if (!parse(v, 1, kMaxTokens, value)) return false;
          c.params.max_tokens = value;
          return true;
        },
        [](const C& c) { return c.params.max_tokens ? fmt::format("{}", *c.params.max_tokens) : "no limit"; }},
    SamplingOption{"temperature", "--temperature", "T", "0: always the likeliest token; higher: freer",
                   "a number from 0 to 2",
                   [](C& c, S v) { return parse(v, 0.0F, 2.0F, c.params.temperature) && (c.set.temperature = true); },
                   [](const C& c) { return shown(c.params.temperature, c.set.temperature); }},
    SamplingOption{"top_p", "--top-p", "P", "Keep the likeliest tokens up to this sum", "a number above 0, at most 1",
                   [](C& c, S v) { return parse(v, 1e-6F, 1.0F, c.params.top_p) && (c.set.top_p = true); },
                   [](const C& c) { return shown(c.params.top_p, c.set.top_p); }},
    SamplingOption{
        "top_k", "--top-k", "K", "Keep so many of the likeliest tokens; 0: all", "a whole number from 0",
        [](C& c, S v) { return parse(v, 0, kMaxTokens, c.params.top_k) && (c.set.top_k = true); },
        [](const C& c) { return c.set.top_k ? fmt::format("{}", c.params.top_k) : std::string("the model's"); }},
    SamplingOption{"min_p", "--min-p", "P", "Drop tokens below this share of the likeliest", "a number from 0 to 1",
                   [](C& c, S v) { return parse(v, 0.0F, 1.0F, c.params.min_p) && (c.set.min_p = true); },
                   [](const C& c) { return shown(c.params.min_p, c.set.min_p); }},
    SamplingOption{"repetition_penalty", "--repetition-penalty", "X", "Above 1: repeat less",
                   "a number from 0.01 to 10",
                   [](C& c, S v) {
                     return parse(v, 0.01F, 10.0F, c.params.repetition_penalty) && (c.set.repetition_penalty = true);
                   },
                   [](const C& c) { return shown(c.params.repetition_penalty, c.set.repetition_penalty); }},
    SamplingOption{"stop", "--stop", "TEXT", "End before this text; may be repeated", "a text",
                   [](C& c, S v) {
                     constexpr size_t kMaxStops = 16;
                     if (v.empty() || c.params.stop.size() >= kMaxStops) return false;
                     c.params.stop.emplace_back(v);
                     return true;
                   },
                   [](const C& c) {
                     return c.params.stop.empty() ? std::string("none") : fmt::format("{} texts", c.params.stop.size());
                   }},
};

}  // namespace

std::span<const SamplingOption> sampling_options() { return kSamplingOptions; }

Status set_sampling_option(SamplingChoice& choice, std::string_view name, std::string_view value) {
  std::vector<std::string_view> known;
  for (const SamplingOption& option : kSamplingOptions) {
    known.push_back(option.name);
    if (option.name != name && option.flag != name) continue;
    if (option.assign(choice, value)) return ok_status();
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("{}: expected {}, got '{}'", name, option.expected, value.substr(0, 80)),
                      std::string(option.name));
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("unknown setting '{}'{}", name, did_you_mean(name, known)));
}

}  // namespace inferneo
