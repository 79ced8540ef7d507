// What rules may know of a request. Plain views: whoever asks for a decision owns the text and keeps it until the
// decision is there. What is dear to know, or changes by itself, is asked through RoutingView, at most once per
// decision and only if a rule that is reached wants it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace inferneo {

// Called from the thread that asks for the decision. Must not throw, must not block, must not ask for a decision.
class RoutingView {
 public:
  virtual ~RoutingView() = default;
  // The value of a header by its name in lower case; empty when there is none. Valid until the decision is there.
  virtual std::string_view header(std::string_view name) const = 0;
  // Tokens of the prompt by the default model's tokenizer; none when they cannot be counted.
  virtual std::optional<int64_t> prompt_tokens() const = 0;
  // Share of a model's places in use, 0 to 1 and above when requests wait; none: no such model.
  virtual std::optional<double> load(std::string_view model) const = 0;
  virtual bool loaded(std::string_view model) const = 0;  // in memory and ready
  virtual int minute_of_day() const = 0;                  // local time, 0 to 1439
};

struct RequestFacts {
  std::string_view prompt = {};                         // a chat's last user message, or the prompt of a completion
  std::span<const std::string_view> conversation = {};  // the text of every message in order, the prompt's too
  std::string_view model = {};                          // as it was asked for; empty when absent
  std::string_view user = {};                           // empty when absent
  int64_t turns = 1;                                    // messages of the user
  std::optional<int64_t> max_tokens = {};
  bool has_tools = false;
  bool stream = false;
  bool embedding = false;             // vectors of texts are asked for; prompt: the first text, conversation: all
  bool tensors = false;               // tensors for a graph; there is no text
  bool choice_is_open = true;         // no model, `auto` or a routed alias was asked for: RoutingScope::routed
  const RoutingView* view = nullptr;  // none: no headers, no tokens, no loads, midnight
};

}  // namespace inferneo
