#include "server/openai/call_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json.h"
#include "server/openai/text_scanner.h"

namespace inferneo {
namespace {

// The text that a JSON string literal stands for.
std::optional<std::string> decode_string(const std::string& literal) {
  const Json json = Json::parse(literal, nullptr, false);
  if (!json.is_string()) return std::nullopt;
  return json.get<std::string>();
}

}  // namespace

JsonValueScanner::State JsonValueScanner::push(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      if (depth_ == 0) return State::done;
    }
    return State::reading;
  }
  const bool closes = c == '}' || c == ']';
  if (depth_ == 0 && scalar_ && (closes || c == ',' || is_json_space(c))) return State::done_before;
  if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (closes) {
    if (--depth_ <= 0) return State::done;
  } else if (depth_ == 0) {
    scalar_ = true;
  }
  return State::reading;
}

CallReader::State CallReader::fail_or(bool good, Phase next) {
  if (!good) return State::failed;
  phase_ = next;
  return State::reading;
}

CallReader::State CallReader::push(char c, EventList& out) {
  if (!begun_) raw_.push_back(c);
  if (phase_ == Phase::value) return push_value(c, out);
  if (phase_ == Phase::key) {
    key_.push_back(c);
    const bool ends = c == '"' && !key_escaped_;
    key_escaped_ = c == '\\' && !key_escaped_;
    if (ends) phase_ = Phase::colon;
    return State::reading;
  }
  if (is_json_space(c)) return State::reading;
  switch (phase_) {
    case Phase::open:
      return fail_or(c == '{', Phase::key_or_end);
    case Phase::key_or_end:
      if (c == '}') return end_object(out);
      key_ = '"';
      return fail_or(c == '"', Phase::key);
    case Phase::colon:
      return fail_or(c == ':', Phase::value_begin);
    case Phase::value_begin: {
      const State state = begin_value(c);
      return state == State::reading ? push_value(c, out) : state;
    }
    case Phase::comma_or_end:
      if (c == '}') return end_object(out);
      return fail_or(c == ',', Phase::key_or_end);
    default:
      return State::failed;
  }
}

CallReader::State CallReader::begin_value(char c) {
  if (c == '}' || c == ']' || c == ',' || c == ':') return State::failed;
  const std::string key = decode_string(key_).value_or("");
  is_text_ = c == '"';
  is_arguments_ = key == "arguments" || key == "parameters";
  if (key == "name" && (!is_text_ || name_)) return State::failed;
  if (is_arguments_ && (has_arguments_ || !(is_text_ || c == '{'))) return State::failed;
  if (is_arguments_) has_arguments_ = true;
  key_ = key;
  value_.clear();
  scanner_ = JsonValueScanner();
  phase_ = Phase::value;
  return State::reading;
}

CallReader::State CallReader::push_value(char c, EventList& out) {
  const JsonValueScanner::State state = scanner_.push(c);
  const bool streams = is_arguments_ && !is_text_;
  if (state != JsonValueScanner::State::done_before) {
    if (!streams) {
      value_.push_back(c);
    } else if (!name_) {
      pending_arguments_.push_back(c);
    } else {
      if (!begun_ && !begin_call(out)) return State::failed;
      out.call_arguments(call_, std::string_view(&c, 1));
    }
  }
  if (state == JsonValueScanner::State::reading) return State::reading;
  phase_ = Phase::comma_or_end;
  if (!end_value()) return State::failed;
  if (is_arguments_ && is_text_ && name_) {
    if (!begin_call(out)) return State::failed;
  }
  if (state == JsonValueScanner::State::done) return State::reading;
  // A scalar ends at the byte that follows it, which is looked at again; raw_ has it already.
  if (!begun_) raw_.pop_back();
  return push(c, out);
}

bool CallReader::end_value() {
  if (key_ == "name") {
    name_ = decode_string(value_);
    return name_.has_value() && !name_->empty();
  }
  if (is_arguments_ && is_text_) {
    const std::optional<std::string> text = decode_string(value_);
    if (!text) return false;
    pending_arguments_ = *text;
  }
  return true;
}

bool CallReader::begin_call(EventList& out) {
  if (known_names_ != nullptr && std::find(known_names_->begin(), known_names_->end(), *name_) == known_names_->end()) {
    return false;
  }
  begun_ = true;
  raw_.clear();
  out.call_begin(call_, *name_);
  out.call_arguments(call_, std::exchange(pending_arguments_, {}));
  return true;
}

CallReader::State CallReader::end_object(EventList& out) {
  if (!name_) return State::failed;
  if (!begun_ && !begin_call(out)) return State::failed;
  if (!has_arguments_) out.call_arguments(call_, "{}");
  return State::done;
}

CallListReader::State CallListReader::push(char c, int& next_call, EventList& out) {
  if (reader_) {
    const CallReader::State state = reader_->push(c, out);
    if (state == CallReader::State::failed) {
      if (reader_->begun()) ++next_call;
      return State::failed;
    }
    if (state == CallReader::State::done) {
      reader_.reset();
      ++next_call;
    }
    return State::reading;
  }
  if (is_json_space(c)) return State::reading;
  if (!open_) {
    open_ = c == '[';
    return open_ ? State::reading : State::failed;
  }
  if (c == ',') return State::reading;
  if (c == ']') return State::done;
  if (c != '{') return State::failed;
  reader_.emplace(next_call, nullptr);
  reader_->push(c, out);
  return State::reading;
}

}  // namespace inferneo
