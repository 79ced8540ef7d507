// Reads one HTTP answer as it arrives, and judges it: chunked coding, SSE framing, JSON (and with it UTF-8), the order
// of events, exactly one end. What it finds wrong first is in breach().
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "inferneo/sampling_params.h"

namespace inferneo::testing {

class StreamReader {
 public:
  void feed(std::string_view bytes);
  void skip_json() { skips_json_ = true; }  // counts events and looks for the end only: for measurements

  bool has_head() const { return status_ != 0; }
  int status() const { return status_; }
  bool is_complete() const { return phase_ == Phase::complete; }
  const std::string& breach() const { return breach_; }
  const std::string& head() const { return head_; }  // in lower case, once it is whole
  const std::string& body() const { return body_; }  // of an answer that is no stream

  struct Choice {
    std::string text;
    std::vector<Token> tokens;  // with logprobs and return_tokens_as_token_ids
    std::string finish_reason;
    int num_ends = 0;
  };
  const std::map<int, Choice>& choices() const { return choices_; }
  size_t num_events() const { return num_events_; }  // data frames without [DONE]
  int num_done() const { return num_done_; }
  const std::string& error_code() const { return error_code_; }  // of the answer or of an error event
  int completion_tokens() const { return completion_tokens_; }   // as the usage event says; -1: there was none

 private:
  enum class Phase { head, fixed, chunk_size, chunk_data, chunk_end, complete };
  bool advance();  // false: more bytes are needed
  bool take_head();
  bool take_chunk_size();
  void take_body(std::string_view bytes);
  void take_frames();
  void take_frame(std::string_view frame);
  void take_event(std::string_view json);
  void fail(std::string what);

  Phase phase_ = Phase::head;
  bool skips_json_ = false;
  bool is_stream_ = false;
  std::string raw_;
  size_t left_ = 0;  // of the chunk or the body
  int status_ = 0;
  std::string head_;
  std::string body_;
  std::string frames_;
  std::map<int, Choice> choices_;
  std::string id_;
  size_t num_events_ = 0;
  int num_done_ = 0;
  std::string error_code_;
  int completion_tokens_ = -1;
  std::string breach_;
};

}  // namespace inferneo::testing
