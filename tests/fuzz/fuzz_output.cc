// Whatever a model writes and however it is cut, each parser tells the same events, in an order that replies rely on.
// The first byte says in which pieces.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "require.h"
#include "server/openai/output_parser.h"

namespace {

using inferneo::EventList;
using inferneo::OutputEvent;
using inferneo::OutputParser;

std::unique_ptr<OutputParser> make(int kind) {
  switch (kind) {
    case 0:
      return inferneo::make_content_parser();
    case 1:
      return inferneo::make_hermes_parser();
    case 2:
      return inferneo::make_llama_parser({"weather", "f"});
    case 3:
      return inferneo::make_mistral_parser();
    case 4:
      return inferneo::make_named_call_parser("weather");
    case 5:
      return inferneo::make_call_list_parser();
    default:
      return inferneo::make_reasoning_parser(kind % 2 == 0, make(kind / 2 - 2));
  }
}
constexpr int kKinds = 12;

// Neighbours of one kind made one, as they are within one push.
std::vector<OutputEvent> joined(const std::vector<OutputEvent>& events) {
  std::vector<OutputEvent> out;
  for (const OutputEvent& event : events) {
    const bool goes_on = !out.empty() && event.kind != OutputEvent::Kind::call_begin && out.back().kind == event.kind &&
                         out.back().call == event.call;
    if (goes_on) {
      out.back().text += event.text;
    } else {
      out.push_back(event);
    }
  }
  return out;
}

std::vector<OutputEvent> parse(int kind, std::string_view text, size_t piece) {
  const auto parser = make(kind);
  std::vector<OutputEvent> events;
  const auto take = [&](const EventList& list) {
    events.insert(events.end(), list.events().begin(), list.events().end());
  };
  for (size_t at = 0; at < text.size(); at += piece) {
    EventList list;
    parser->push(text.substr(at, piece), list);
    take(list);
  }
  EventList list;
  parser->finish(list);
  take(list);
  return joined(events);
}

void check_order(const std::vector<OutputEvent>& events, size_t input) {
  int calls = 0;
  size_t bytes = 0;
  for (const OutputEvent& event : events) {
    bytes += event.text.size();
    if (event.kind == OutputEvent::Kind::call_begin) {
      require(event.call == calls++, "calls are numbered from 0 on");
    } else if (event.kind == OutputEvent::Kind::call_arguments) {
      require(event.call == calls - 1, "arguments follow the beginning of their call");
    } else {
      require(!event.text.empty(), "no empty pieces");
    }
  }
  // Arguments that are missing become "{}"; names are read once.
  require(bytes <= 3 * input + 16, "nothing is said twice");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (int kind = 0; kind < kKinds; ++kind) {
    const std::vector<OutputEvent> whole = parse(kind, text, text.size() + 1);
    check_order(whole, text.size());
    require(whole == parse(kind, text, 1 + data[0] % 5), "the pieces do not matter");
  }
  return 0;
}
