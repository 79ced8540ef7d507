#include "cli/traffic_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/model_command.h"
#include "cli/text_table.h"
#include "cli/units.h"

namespace inferneo {
namespace {

using Json = nlohmann::json;

std::string text(const Json& object, const char* name) {
  std::string line = text_field(object, name);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

std::string text_or_dash(const Json& object, const char* name) {
  std::string line = text(object, name);
  return line.empty() ? "-" : line;
}

const Json& member(const Json& object, const char* name) {
  static const Json none;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? none : *found;
}

double number(const Json& object, const char* name) {
  const Json& value = member(object, name);
  return value.is_number() ? value.get<double>() : std::nan("");
}

std::string count(const Json& object, const char* name) {
  const double value = number(object, name);
  return std::isfinite(value) ? fmt::format("{:.0f}", value) : "-";
}

std::string percent(double share) { return std::isfinite(share) ? fmt::format("{:.3g} %", 100.0 * share) : "-"; }

std::string milliseconds(const Json& latency, const char* name) {
  const double seconds = number(latency, name);
  return std::isfinite(seconds) ? fmt::format("{:.3g} ms", 1000.0 * seconds) : "-";
}

std::string joined(const Json& list, std::string_view between) {
  std::string line;
  if (!list.is_array()) return line;
  for (const Json& entry : list) {
    if (!entry.is_string()) continue;
    line += (line.empty() ? "" : std::string(between)) + entry.get<std::string>();
  }
  return line;
}

// Where a rule sends what it matches.
std::string target(const Json& rule) {
  if (std::string model = text(rule, "model_name"); !model.empty()) return model;
  if (const std::string test = text(rule, "ab_test"); !test.empty()) return "test " + test;
  if (std::string chain = joined(member(rule, "models"), " > "); !chain.empty()) return chain;
  const Json& refusal = member(rule, "refusal");
  return refusal.is_object() ? "refused " + count(refusal, "status") : "-";
}

bool is_on(const Json& rule) { return member(rule, "enabled") != false; }

std::string arms_line(const Json& test) {
  std::string line;
  const Json& arms = member(test, "arms");
  if (!arms.is_array()) return "-";
  for (const Json& arm : arms) {
    line += fmt::format("{}{} {} {}", line.empty() ? "" : ", ", text(arm, "name"), text(arm, "model"),
                        percent(number(arm, "share")));
  }
  return line;
}

double sum_of(const Json& test, const char* name) {
  double sum = 0.0;
  if (member(test, "arms").is_array()) {
    for (const Json& arm : member(test, "arms")) sum += std::max(0.0, number(arm, name));
  }
  return sum;
}

const Json& entries(const Json& list) {
  static const Json none = Json::array();
  const Json& data = member(list, "data");
  return data.is_array() ? data : none;
}

// The rows of a test's arms, from its results where there are any.
std::vector<std::vector<std::string>> arm_rows(const Json& test) {
  std::vector<std::vector<std::string>> rows;
  const Json& results = member(member(test, "results"), "arms");
  const Json& arms = member(test, "arms");
  for (size_t i = 0; arms.is_array() && i < arms.size(); ++i) {
    const Json result = results.is_array() && i < results.size() ? results[i] : Json();
    const Json& feedback = member(result, "feedback");
    const double score = number(feedback, "mean");
    rows.push_back({text(arms[i], "name"), text(arms[i], "model"), percent(number(arms[i], "share")),
                    count(arms[i], "requests"), percent(number(result, "error_rate")),
                    milliseconds(member(result, "time_to_first_token"), "p50"),
                    milliseconds(member(result, "time_to_first_token"), "p95"),
                    milliseconds(member(result, "end_to_end"), "p50"), count(result, "completion_tokens"),
                    std::isfinite(score) ? fmt::format("{:.2f} of {}", score, count(feedback, "count")) : "-"});
  }
  return rows;
}

// What an arm has besides a model: "a prompt template, max_num_seqs = 4".
std::string what_is_its_own(const Json& arm) {
  std::string own;
  const auto add = [&](const std::string& part) { own += (own.empty() ? "" : ", ") + part; };
  for (const auto& [field, words] :
       {std::pair("prompt_template", "a prompt template"), std::pair("system_prompt", "a system prompt")}) {
    if (!text(arm, field).empty()) add(words);
  }
  for (const char* const field : {"sampling", "settings"}) {
    if (!member(arm, field).is_object()) continue;
    for (const auto& [name, value] : member(arm, field).items()) {
      add(fmt::format("{} = {}", name, value.is_string() ? text(member(arm, field), name.c_str()) : value.dump()));
    }
  }
  return own;
}

}  // namespace

std::string rules_text(const Json& list, size_t width) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& rule : entries(list)) {
    rows.push_back({text(rule, "name") + (is_on(rule) ? "" : " (off)"), count(rule, "priority"), target(rule),
                    count(rule, "hits"), text_or_dash(rule, "source"),
                    text(rule, "condition") + (text(rule, "applies_to") == "all" ? "  [all requests]" : "")});
  }
  return text_table({{"RULE"}, {"PRIORITY", true}, {"GOES TO"}, {"HITS", true}, {"FROM"}, {"CONDITION"}}, rows, width);
}

std::string rule_text_of(const Json& rule) {
  std::string lines =
      fmt::format("{}{}\n  condition   {}\n  goes to     {}\n  priority    {}\n  sees        {}\n", text(rule, "name"),
                  is_on(rule) ? "" : " (off)", text(rule, "condition"), target(rule), count(rule, "priority"),
                  text(rule, "applies_to") == "all" ? "all requests" : "requests that leave the model open");
  lines += fmt::format("  hits        {}\n  from        {}\n", count(rule, "hits"), text_or_dash(rule, "source"));
  return lines;
}

std::string routing_text_of(const Json& options) {
  std::string lines = fmt::format("where no rule matches: {}\n", text_or_dash(options, "strategy"));
  lines += fmt::format("  default model   {}\n", text_or_dash(options, "default_model"));
  if (member(options, "candidates").is_array()) {
    for (const Json& candidate : member(options, "candidates")) {
      lines +=
          fmt::format("  candidate       {} (weight {:g})\n", text(candidate, "model"), number(candidate, "weight"));
    }
  }
  lines += fmt::format("  spill over at   {}\n", count(options, "spill_over_at"));
  const Json& fallbacks = member(options, "fallbacks");
  if (fallbacks.is_object()) {
    for (const auto& [model, followers] : fallbacks.items()) {
      lines += fmt::format("  fallback        {} > {}\n", model, joined(followers, " > "));
    }
  }
  const std::string routed = joined(member(options, "routed_names"), ", ");
  lines += fmt::format("  routed names    auto{}{}\n", routed.empty() ? "" : ", ", routed);
  return lines;
}

std::string tests_text(const Json& list, size_t width) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& test : entries(list)) {
    rows.push_back({text(test, "name"), text(test, "state"), arms_line(test),
                    fmt::format("{:.0f}", sum_of(test, "requests")), text_or_dash(test, "source"),
                    text_or_dash(test, "verdict")});
  }
  return text_table({{"TEST"}, {"STATE"}, {"ARMS"}, {"REQUESTS", true}, {"FROM"}, {"VERDICT"}}, rows, width);
}

std::string test_text_of(const Json& test, size_t width) {
  const double ran = number(test, "ran_seconds");
  std::string lines =
      fmt::format("{}: {}, ran {}; sticky by {}; decided by {}\n", text(test, "name"), text(test, "state"),
                  std::isfinite(ran) ? duration_text(ran) : "-", text(test, "sticky_by"), text(test, "primary_metric"));
  if (const std::string arm = text(test, "promoted"); !arm.empty()) lines += "arm " + arm + " gets everything\n";
  lines += text_table({{"ARM"},
                       {"MODEL"},
                       {"SHARE", true},
                       {"REQUESTS", true},
                       {"ERRORS", true},
                       {"TTFT p50", true},
                       {"p95", true},
                       {"TOTAL p50", true},
                       {"TOKENS", true},
                       {"FEEDBACK", true}},
                      arm_rows(test), width);
  if (member(test, "arms").is_array()) {
    for (const Json& arm : member(test, "arms")) {
      if (const std::string own = what_is_its_own(arm); !own.empty()) {
        lines += fmt::format("arm {} has {}\n", text(arm, "name"), own);
      }
      const std::string why = text(arm, "stopped");
      if (!why.empty()) lines += fmt::format("arm {} was stopped: {}\n", text(arm, "name"), why);
    }
  }
  const Json& metrics = member(member(test, "results"), "metrics");
  if (metrics.is_array()) {
    for (const Json& metric : metrics) {
      lines += fmt::format("  {} {}\n", member(metric, "primary") == true ? "*" : " ", text(metric, "sentence"));
    }
  }
  return lines + text_or_dash(test, "verdict") + "\n";
}

std::string explanation_text(const Json& explanation) {
  std::string lines;
  if (member(explanation, "rules").is_array()) {
    for (const Json& rule : member(explanation, "rules")) {
      const std::string why = text(rule, "why");
      std::string outcome = text(rule, "outcome");
      std::replace(outcome.begin(), outcome.end(), '_', ' ');
      lines += fmt::format("  rule {}: {}{}\n", text(rule, "name"), outcome, why.empty() ? "" : ", since " + why);
    }
  }
  if (member(explanation, "steps").is_array()) {
    for (const Json& step : member(explanation, "steps")) {
      if (step.is_string()) lines += "  " + without_control_characters(step.get<std::string>()) + "\n";
    }
  }
  const Json& loading = member(explanation, "loading");
  if (loading.is_object()) {
    const std::string evicted = joined(member(loading, "evicts"), ", ");
    const double seconds = number(loading, "seconds");
    lines += fmt::format("  {} is not in memory: {}{}{}\n", text(loading, "model"),
                         member(loading, "fits") == true ? "it would be loaded" : "it would not fit",
                         std::isfinite(seconds) ? fmt::format(", in about {}", duration_text(seconds)) : "",
                         evicted.empty() ? "" : ", in the place of " + evicted);
  }
  return lines + text_or_dash(explanation, "route") + "\n";
}

}  // namespace inferneo
