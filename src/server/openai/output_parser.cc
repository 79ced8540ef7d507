#include "server/openai/output_parser.h"

namespace inferneo {
namespace {

class ContentParser final : public OutputParser {
 public:
  void push(std::string_view text, EventList& out) override { out.content(text); }
  void finish(EventList&) override {}
};

}  // namespace

void EventList::append(OutputEvent::Kind kind, int call, std::string_view text) {
  if (text.empty()) return;
  if (!events_.empty() && events_.back().kind == kind && events_.back().call == call) {
    events_.back().text += text;
  } else {
    events_.push_back(OutputEvent{kind, call, std::string(text)});
  }
}

void EventList::call_begin(int call, std::string_view name) {
  events_.push_back(OutputEvent{OutputEvent::Kind::call_begin, call, std::string(name)});
}

std::unique_ptr<OutputParser> make_content_parser() { return std::make_unique<ContentParser>(); }

}  // namespace inferneo
