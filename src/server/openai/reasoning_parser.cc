#include "server/openai/output_parser.h"
#include "server/openai/text_scanner.h"

namespace inferneo {
namespace {

class ReasoningParser final : public OutputParser {
 public:
  ReasoningParser(bool begins_inside, std::unique_ptr<OutputParser> content)
      : begins_inside_(begins_inside), content_(std::move(content)) {}

  void push(std::string_view text, EventList& out) override {
    for (size_t i = 0; i < text.size(); ++i) {
      if (phase_ == Phase::content) {
        content_->push(text.substr(i), out);
        return;
      }
      step(text[i], out);
    }
  }

  void finish(EventList& out) override {
    if (phase_ == Phase::begin) {
      const std::string rest = leading_space_ + open_.take_held();
      if (!begins_inside_) {
        content_->push(rest, out);
      } else if (rest.find_first_not_of(" \n\r\t") != std::string::npos) {
        out.reasoning(rest);
      }
    } else if (phase_ == Phase::inside) {
      out.reasoning(space_.pass(close_.take_held()));
    }
    content_->finish(out);
  }

 private:
  enum class Phase { begin, after_open, inside, after_close, content };

  void step(char c, EventList& out) {
    switch (phase_) {
      case Phase::begin:
        return step_begin(c, out);
      case Phase::after_open:
        if (is_json_space(c)) return;
        phase_ = Phase::inside;
        return step_inside(c, out);
      case Phase::inside:
        return step_inside(c, out);
      case Phase::after_close:
        if (is_json_space(c)) return;
        phase_ = Phase::content;
        return content_->push(std::string_view(&c, 1), out);
      case Phase::content:
        return;
    }
  }

  // The block must be the first thing; a <think> later on is text.
  void step_begin(char c, EventList& out) {
    if (is_json_space(c) && !open_.holds_something()) {
      leading_space_.push_back(c);
      return;
    }
    std::string released;
    if (open_.push(c, released)) {
      phase_ = Phase::after_open;
      return;
    }
    if (released.empty()) return;
    released += open_.take_held();
    if (begins_inside_) {
      phase_ = Phase::inside;
      for (const char r : released) step(r, out);  // may hold "</think>" already
    } else {
      phase_ = Phase::content;
      content_->push(leading_space_ + released, out);
    }
  }

  void step_inside(char c, EventList& out) {
    std::string released;
    const bool closed = close_.push(c, released);
    out.reasoning(space_.pass(released));
    if (closed) phase_ = Phase::after_close;
  }

  bool begins_inside_;
  std::unique_ptr<OutputParser> content_;
  Phase phase_ = Phase::begin;
  MarkerScanner open_{"<think>"};
  MarkerScanner close_{"</think>"};
  TrailingSpace space_;
  std::string leading_space_;
};

}  // namespace

std::unique_ptr<OutputParser> make_reasoning_parser(bool begins_inside, std::unique_ptr<OutputParser> content) {
  return std::make_unique<ReasoningParser>(begins_inside, std::move(content));
}

}  // namespace inferneo
