#include "server/openai/call_reader.h"
#include "server/openai/output_parser.h"

namespace inferneo {
namespace {

class NamedCallParser final : public OutputParser {
 public:
  explicit NamedCallParser(std::string name) : name_(std::move(name)) {}

  void push(std::string_view text, EventList& out) override {
    begin(out);
    out.call_arguments(0, text);
  }
  void finish(EventList& out) override { begin(out); }

 private:
  void begin(EventList& out) {
    if (!begun_) out.call_begin(0, name_);
    begun_ = true;
  }

  std::string name_;
  bool begun_ = false;
};

class CallListParser final : public OutputParser {
 public:
  void push(std::string_view text, EventList& out) override {
    for (const char c : text) {
      if (!ended_) ended_ = list_.push(c, next_call_, out) != CallListReader::State::reading;
    }
  }
  void finish(EventList&) override {}

 private:
  CallListReader list_;
  int next_call_ = 0;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<OutputParser> make_named_call_parser(std::string name) {
  return std::make_unique<NamedCallParser>(std::move(name));
}

std::unique_ptr<OutputParser> make_call_list_parser() { return std::make_unique<CallListParser>(); }

}  // namespace inferneo
