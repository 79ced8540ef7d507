#include "stream_reader.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace inferneo::testing {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kTokenPrefix = "token_id:";

void append_tokens(const Json& names, std::vector<Token>& tokens) {
  for (const Json& entry : names) {
    const std::string name = entry.is_object() ? entry.value("token", "") : entry.get<std::string>();
    tokens.push_back(name.starts_with(kTokenPrefix) ? std::stoi(name.substr(kTokenPrefix.size())) : -1);
  }
}

}  // namespace

void StreamReader::fail(std::string what) {
  if (breach_.empty()) breach_ = std::move(what);
}

void StreamReader::feed(std::string_view bytes) {
  raw_ += bytes;
  while (breach_.empty() && advance()) {
  }
}

bool StreamReader::advance() {
  switch (phase_) {
    case Phase::head:
      return take_head();
    case Phase::chunk_size:
      return take_chunk_size();
    case Phase::fixed:
    case Phase::chunk_data: {
      if (raw_.empty() && left_ > 0) return false;
      const size_t size = std::min(left_, raw_.size());
      take_body(std::string_view(raw_).substr(0, size));
      raw_.erase(0, size);
      left_ -= size;
      if (left_ == 0) phase_ = phase_ == Phase::fixed ? Phase::complete : Phase::chunk_end;
      return true;
    }
    case Phase::chunk_end:
      if (raw_.size() < 2) return false;
      if (!raw_.starts_with("\r\n")) fail("a chunk does not end with CR LF");
      raw_.erase(0, 2);
      phase_ = Phase::chunk_size;
      return true;
    case Phase::complete:
      break;
  }
  if (!raw_.empty()) fail("bytes after the end of the answer");
  if (is_stream_ && !frames_.empty()) fail("the stream ends in the middle of a frame");
  if (status_ != 200 && !is_stream_ && error_code_.empty()) {
    const Json error = Json::parse(body_, nullptr, false);
    if (error.is_discarded() || !error.contains("error")) {
      fail("an error without an error object");
    } else {
      error_code_ = error["error"].value("code", "");
    }
  }
  return false;
}

bool StreamReader::take_head() {
  const size_t end = raw_.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  head_ = raw_.substr(0, end + 2);
  raw_.erase(0, end + 4);
  for (char& c : head_) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (!head_.starts_with("http/1.1 ")) fail("no status line");
  std::from_chars(head_.data() + 9, head_.data() + 12, status_);
  is_stream_ = head_.find("content-type: text/event-stream") != std::string::npos;
  const size_t length = head_.find("content-length: ");
  if (head_.find("transfer-encoding: chunked") != std::string::npos) {
    phase_ = Phase::chunk_size;
  } else if (length == std::string::npos) {
    fail("neither chunked nor with a length");
  } else {
    left_ = std::stoul(head_.substr(length + 16));
    phase_ = Phase::fixed;
  }
  return true;
}

bool StreamReader::take_chunk_size() {
  const size_t end = raw_.find("\r\n");
  if (end == std::string::npos) return false;
  const auto parsed = std::from_chars(raw_.data(), raw_.data() + end, left_, 16);
  if (parsed.ec != std::errc() || parsed.ptr != raw_.data() + end) fail("a chunk's size is no number");
  raw_.erase(0, end + 2);
  if (left_ > 0) {
    phase_ = Phase::chunk_data;
    return true;
  }
  if (raw_.size() < 2) {  // the empty trailer may be still to come
    raw_.insert(0, "0\r\n");
    return false;
  }
  raw_.erase(0, 2);
  phase_ = Phase::complete;
  return true;
}

void StreamReader::take_body(std::string_view bytes) {
  if (!is_stream_) {
    body_ += bytes;
    return;
  }
  frames_ += bytes;
  take_frames();
}

void StreamReader::take_frames() {
  size_t at = 0;
  for (size_t end = 0; (end = frames_.find("\n\n", at)) != std::string::npos; at = end + 2) {
    take_frame(std::string_view(frames_).substr(at, end - at));
  }
  frames_.erase(0, at);
}

void StreamReader::take_frame(std::string_view frame) {
  if (frame.starts_with(':')) return;
  if (!frame.starts_with("data: ")) return fail("a frame that is neither data nor a comment");
  if (num_done_ > 0) return fail("a frame after [DONE]");
  frame.remove_prefix(6);
  if (frame == "[DONE]") {
    ++num_done_;
    return;
  }
  ++num_events_;
  if (!skips_json_) take_event(frame);
}

void StreamReader::take_event(std::string_view text) {
  const Json event = Json::parse(text, nullptr, false);  // refuses invalid UTF-8 as well
  if (event.is_discarded()) return fail("an event that is not JSON in UTF-8: " + std::string(text));
  if (!error_code_.empty()) return fail("an event after the error");
  if (event.contains("error")) {
    error_code_ = event["error"].value("code", "unnamed");
    return;
  }
  if (id_.empty()) id_ = event.value("id", "");
  if (id_.empty() || event.value("id", "") != id_) return fail("events of two ids in one stream");
  if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
    if (completion_tokens_ >= 0) fail("two usage events");
    completion_tokens_ = usage->value("completion_tokens", -1);
  }
  for (const Json& part : event.at("choices")) {
    Choice& choice = choices_[part.value("index", -1)];
    if (choice.num_ends > 0) fail("a delta after the choice's end");
    if (part.contains("text")) choice.text += part["text"].get<std::string>();
    if (part.contains("delta")) choice.text += part["delta"].value("content", "");
    if (part["logprobs"].is_object()) {
      append_tokens(part["logprobs"].contains("tokens") ? part["logprobs"]["tokens"] : part["logprobs"]["content"],
                    choice.tokens);
    }
    if (part["finish_reason"].is_string()) {
      ++choice.num_ends;
      choice.finish_reason = part["finish_reason"].get<std::string>();
      if (choice.finish_reason != "stop" && choice.finish_reason != "length") {
        fail("a finish reason where an error event belongs: " + choice.finish_reason);
      }
    }
  }
}

}  // namespace inferneo::testing
