// Reads {"name": "f", "arguments": {...}} byte by byte and tells of the call as soon as it is certain.
//
// The keys may stand in any order and `parameters` stands for `arguments`; other keys are read past. The arguments come
// out as the model wrote them; arguments written as a JSON string come out decoded.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/openai/output_parser.h"

namespace inferneo {

// Follows one JSON value to its end.
class JsonValueScanner {
 public:
  enum class State { reading, done, done_before };  // done_before: c is already what follows the value
  State push(char c);

 private:
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool scalar_ = false;
};

class CallReader {
 public:
  // known_names: null when every name counts as a call.
  CallReader(int call, const std::vector<std::string>* known_names) : call_(call), known_names_(known_names) {}

  enum class State { reading, done, failed };
  State push(char c, EventList& out);

  bool begun() const { return begun_; }            // call_begin has gone out
  const std::string& raw() const { return raw_; }  // everything read, as long as the call has not begun

 private:
  enum class Phase { open, key_or_end, key, colon, value_begin, value, comma_or_end };
  State fail_or(bool good, Phase next);
  State begin_value(char c);
  State push_value(char c, EventList& out);
  bool end_value();
  State end_object(EventList& out);
  bool begin_call(EventList& out);

  int call_;
  const std::vector<std::string>* known_names_;
  Phase phase_ = Phase::open;
  bool begun_ = false;
  std::string raw_;
  std::string key_;
  std::string value_;  // of the name, of arguments written as a string, or of arguments before the call has begun
  JsonValueScanner scanner_;
  bool is_arguments_ = false;
  bool is_text_ = false;
  bool key_escaped_ = false;
  std::optional<std::string> name_;
  bool has_arguments_ = false;
  std::string pending_arguments_;
};

// A list of such objects: [ {...}, {...} ].
class CallListReader {
 public:
  enum class State { reading, done, failed };
  // Calls are numbered from next_call on.
  State push(char c, int& next_call, EventList& out);
  // The text of a call that has not begun and now never will.
  std::string unfinished() const { return reader_ && !reader_->begun() ? reader_->raw() : std::string(); }

 private:
  bool open_ = false;
  std::optional<CallReader> reader_;
};

}  // namespace inferneo
