#include <optional>

#include "server/openai/call_reader.h"
#include "server/openai/output_parser.h"
#include "server/openai/text_scanner.h"

namespace inferneo {
namespace {

class HermesParser final : public OutputParser {
 public:
  void push(std::string_view text, EventList& out) override {
    for (const char c : text) step(c, out);
  }

  void finish(EventList& out) override {
    switch (phase_) {
      case Phase::content:
        out.content(space_.pass(open_.take_held()));
        break;
      case Phase::call:
        // A call that was cut off before it was one is shown as the text it is.
        if (!reader_->begun()) out.content(space_.pass(reader_->raw()));
        break;
      case Phase::broken:
        out.content(space_.pass(close_.take_held()));
        break;
      case Phase::closing:
        break;
    }
    if (next_call_ == 0 && phase_ != Phase::call) out.content(space_.take_held());
  }

 private:
  enum class Phase { content, call, broken, closing };

  void step(char c, EventList& out) {
    switch (phase_) {
      case Phase::content:
        return step_content(c, out);
      case Phase::call:
        return step_call(c, out);
      case Phase::broken:
        return step_broken(c, out);
      case Phase::closing:
        return step_closing(c, out);
    }
  }

  void step_content(char c, EventList& out) {
    std::string released;
    const bool opened = open_.push(c, released);
    out.content(space_.pass(released));
    if (!opened) return;
    space_.take_held();
    reader_.emplace(next_call_, nullptr);
    phase_ = Phase::call;
  }

  void step_call(char c, EventList& out) {
    const CallReader::State state = reader_->push(c, out);
    if (state == CallReader::State::reading) return;
    if (reader_->begun()) ++next_call_;
    if (state == CallReader::State::done) {
      phase_ = Phase::closing;
      return;
    }
    phase_ = Phase::broken;
    const std::string raw = reader_->raw();  // empty once the call has begun
    for (const char r : raw) step_broken(r, out);
  }

  // Not JSON: the text up to the closing marker is content, unless part of it has gone out as a call.
  void step_broken(char c, EventList& out) {
    std::string released;
    const bool closed = close_.push(c, released);
    if (!reader_->begun()) out.content(space_.pass(released));
    if (closed) phase_ = Phase::content;
  }

  void step_closing(char c, EventList& out) {
    if (is_json_space(c) && !close_.holds_something()) return;
    std::string released;
    if (close_.push(c, released)) {
      phase_ = Phase::content;
    } else if (!released.empty()) {  // the model forgot the marker
      phase_ = Phase::content;
      released += close_.take_held();
      for (const char r : released) step_content(r, out);
    }
  }

  Phase phase_ = Phase::content;
  int next_call_ = 0;
  std::optional<CallReader> reader_;
  MarkerScanner open_{"<tool_call>"};
  MarkerScanner close_{"</tool_call>"};
  TrailingSpace space_;
};

}  // namespace

std::unique_ptr<OutputParser> make_hermes_parser() { return std::make_unique<HermesParser>(); }

}  // namespace inferneo
