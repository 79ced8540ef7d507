#include <optional>

#include "server/openai/call_reader.h"
#include "server/openai/output_parser.h"
#include "server/openai/text_scanner.h"

namespace inferneo {
namespace {

class LlamaParser final : public OutputParser {
 public:
  explicit LlamaParser(std::vector<std::string> tool_names) : tool_names_(std::move(tool_names)) {}

  void push(std::string_view text, EventList& out) override {
    for (size_t i = 0; i < text.size(); ++i) {
      if (phase_ == Phase::content) return out.content(text.substr(i));
      step(text[i], out);
    }
  }

  void finish(EventList& out) override {
    if (phase_ == Phase::begin) out.content(space_ + tag_.take_held());
    if (phase_ == Phase::call && !reader_->begun()) out.content(space_ + reader_->raw());
  }

 private:
  enum class Phase { begin, call, between, content, dropped };

  void step(char c, EventList& out) {
    switch (phase_) {
      case Phase::begin:
        return step_begin(c, out);
      case Phase::call:
        return step_call(c, out);
      case Phase::between:
        return step_between(c, out);
      case Phase::content:
        return out.content(std::string_view(&c, 1));
      case Phase::dropped:
        return;
    }
  }

  void begin_call(char c, EventList& out) {
    phase_ = Phase::call;
    reader_.emplace(next_call_, &tool_names_);
    reader_->push(c, out);
  }

  void step_begin(char c, EventList& out) {
    const bool at_start = !tag_.holds_something();
    if (at_start && is_json_space(c)) {
      space_.push_back(c);
    } else if (at_start && c == '{') {
      begin_call(c, out);
    } else {
      std::string released;
      if (tag_.push(c, released) || released.empty()) return;  // the tag itself says nothing more than the braces do
      phase_ = Phase::content;
      out.content(space_ + released + tag_.take_held());
    }
  }

  void step_call(char c, EventList& out) {
    const CallReader::State state = reader_->push(c, out);
    if (state == CallReader::State::reading) return;
    if (state == CallReader::State::done) {
      ++next_call_;
      space_.clear();
      phase_ = Phase::between;
    } else if (reader_->begun()) {
      phase_ = Phase::dropped;  // the rest of a call that went wrong is neither call nor answer
    } else {
      phase_ = Phase::content;
      out.content(space_ + reader_->raw());
    }
  }

  void step_between(char c, EventList& out) {
    if (is_json_space(c) || c == ';' || c == ',') return;
    if (c == '{') return begin_call(c, out);
    phase_ = Phase::content;
    out.content(std::string_view(&c, 1));
  }

  std::vector<std::string> tool_names_;
  Phase phase_ = Phase::begin;
  int next_call_ = 0;
  std::optional<CallReader> reader_;
  MarkerScanner tag_{"<|python_tag|>"};
  std::string space_;
};

}  // namespace

std::unique_ptr<OutputParser> make_llama_parser(std::vector<std::string> tool_names) {
  return std::make_unique<LlamaParser>(std::move(tool_names));
}

}  // namespace inferneo
