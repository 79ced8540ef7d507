#include <optional>

#include "server/openai/call_reader.h"
#include "server/openai/output_parser.h"
#include "server/openai/text_scanner.h"

namespace inferneo {
namespace {

class MistralParser final : public OutputParser {
 public:
  void push(std::string_view text, EventList& out) override {
    for (const char c : text) step(c, out);
  }

  void finish(EventList& out) override {
    if (phase_ == Phase::content) out.content(space_.pass(open_.take_held()));
    if (phase_ == Phase::list) out.content(space_.pass(list_->unfinished()));
    if (phase_ == Phase::name) out.content(space_.pass(name_ + args_.take_held()));
    if (next_call_ == 0 && phase_ == Phase::content) out.content(space_.take_held());
  }

 private:
  enum class Phase { content, opened, list, name, arguments };

  void step(char c, EventList& out) {
    switch (phase_) {
      case Phase::content:
        return step_content(c, out);
      case Phase::opened:
        return step_opened(c, out);
      case Phase::list:
        return step_list(c, out);
      case Phase::name:
        return step_name(c, out);
      case Phase::arguments:
        return step_arguments(c, out);
    }
  }

  void step_content(char c, EventList& out) {
    std::string released;
    const bool opened = open_.push(c, released);
    out.content(space_.pass(released));
    if (!opened) return;
    space_.take_held();
    phase_ = Phase::opened;
  }

  void step_opened(char c, EventList& out) {
    if (is_json_space(c)) return;
    if (c == '[') {
      list_.emplace();
      phase_ = Phase::list;
      return step_list(c, out);
    }
    name_.clear();
    phase_ = Phase::name;
    step_name(c, out);
  }

  void step_list(char c, EventList& out) {
    const CallListReader::State state = list_->push(c, next_call_, out);
    if (state == CallListReader::State::reading) return;
    phase_ = Phase::content;
    if (state == CallListReader::State::failed) {
      for (const char r : list_->unfinished()) step_content(r, out);
    }
  }

  // The newer form: name[ARGS]{...}, in which [ARGS] may be missing.
  void step_name(char c, EventList& out) {
    if (c == '{' && !args_.holds_something()) {
      begin_arguments(out);
      return step_arguments(c, out);
    }
    std::string released;
    const bool complete = args_.push(c, released);
    name_ += released;
    if (complete) begin_arguments(out);
  }

  void begin_arguments(EventList& out) {
    while (!name_.empty() && is_json_space(name_.back())) name_.pop_back();
    out.call_begin(next_call_, name_);
    name_.clear();
    scanner_ = JsonValueScanner();
    arguments_begun_ = false;
    phase_ = Phase::arguments;
  }

  void step_arguments(char c, EventList& out) {
    if (!arguments_begun_ && is_json_space(c)) return;
    arguments_begun_ = true;
    const JsonValueScanner::State state = scanner_.push(c);
    if (state != JsonValueScanner::State::done_before) out.call_arguments(next_call_, std::string_view(&c, 1));
    if (state == JsonValueScanner::State::reading) return;
    ++next_call_;
    phase_ = Phase::content;
    if (state == JsonValueScanner::State::done_before) step_content(c, out);
  }

  Phase phase_ = Phase::content;
  int next_call_ = 0;
  std::optional<CallListReader> list_;
  std::string name_;
  bool arguments_begun_ = false;
  JsonValueScanner scanner_;
  MarkerScanner open_{"[TOOL_CALLS]"};
  MarkerScanner args_{"[ARGS]"};
  TrailingSpace space_;
};

}  // namespace

std::unique_ptr<OutputParser> make_mistral_parser() { return std::make_unique<MistralParser>(); }

}  // namespace inferneo
