// Requests together with the answers that an undisturbed engine gives, computed from the scripted runner's own rule and
// the real tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "stream_reader.h"
#include "text/tokenizer.h"

namespace inferneo::testing {

// The bundled storyteller's tokenizer, with its chat template; loaded once.
std::shared_ptr<const Tokenizer> story_tokenizer();

struct Question {
  std::string request;  // as it goes over the wire
  std::vector<Token> prompt;
  std::vector<Token> tokens;  // of the answer, unless a stop string ends it
  std::string text;
  std::string finish_reason = "length";
  size_t num_choices = 1;
  bool tells_tokens = false;
  bool tells_usage = false;
};

// Streams, greedily, exactly max_tokens tokens. `fields` are further fields of the request, such as "model" and "n".
Question ask_completion(const Tokenizer& tokenizer, const std::vector<Token>& prompt, int max_tokens,
                        nlohmann::json fields = nlohmann::json::object());
Question ask_chat(const Tokenizer& tokenizer, const std::string& message, int max_tokens,
                  nlohmann::json fields = nlohmann::json::object());

// A prompt of plain tokens that no other number gives.
std::vector<Token> prompt_of(uint64_t number, size_t length, int32_t vocab_size);

// Some characters out of the middle of a text that a request may name as its stop string; empty: it has none.
std::string stop_within(const std::string& text);

// What is wrong with the whole answer to a question, or with the part of it that a client has read before it left;
// empty: nothing.
std::string judge_whole(const Question& question, const StreamReader& answer);
std::string judge_part(const Question& question, const StreamReader& answer);

}  // namespace inferneo::testing
