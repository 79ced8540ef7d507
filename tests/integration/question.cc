#include "question.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <random>

#include "engine/scripted_runner.h"
#include "raw_client.h"

namespace inferneo::testing {
namespace {

using Json = nlohmann::json;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void expect_answer(const Tokenizer& tokenizer, int max_tokens, Question& question) {
  ScriptedToken at;
  at.prompt = question.prompt;
  at.vocab_size = tokenizer.vocab_size();
  at.context_hash = ScriptedRunner::context_hash(question.prompt);
  for (at.output_index = 0; at.output_index < max_tokens; ++at.output_index) {
    question.tokens.push_back(ScriptedRunner::default_token(at));
    at.context_hash = ScriptedRunner::extend_hash(at.context_hash, question.tokens.back());
  }
  question.text = tokenizer.decode(question.tokens, true).value();
}

void finish_question(const Tokenizer& tokenizer, const char* path, int max_tokens, Json fields, Question& question) {
  expect_answer(tokenizer, max_tokens, question);
  fields["stream"] = true;
  fields["temperature"] = 0;
  fields["max_tokens"] = max_tokens;
  question.num_choices = fields.value("n", size_t{1});
  question.tells_tokens = fields.value("return_tokens_as_token_ids", false);
  question.tells_usage = fields.contains("stream_options");
  if (fields.contains("stop")) {
    question.text.resize(question.text.find(fields["stop"].get<std::string>()));
    question.tokens.clear();  // which of them was the last is the text side's business
    question.finish_reason = "stop";
    question.tells_tokens = false;
  }
  question.request = http_request("POST", path, fields.dump());
}

std::string judge_choice(const Question& question, const StreamReader::Choice& choice, bool whole) {
  const auto is_front = [](const auto& part, const auto& all) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
  };
  if (!is_front(choice.text, question.text)) return fmt::format("another text: {}", choice.text);
  if (question.tells_tokens && !is_front(choice.tokens, question.tokens)) return "other tokens";
  if (!whole) return {};
  if (choice.text.size() != question.text.size()) return "the text is not whole";
  if (question.tells_tokens && choice.tokens.size() != question.tokens.size()) return "tokens are missing";
  if (choice.num_ends != 1) return fmt::format("{} finish reasons", choice.num_ends);
  if (choice.finish_reason != question.finish_reason) return "finish reason " + choice.finish_reason;
  return {};
}

}  // namespace

std::shared_ptr<const Tokenizer> story_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    const std::string folder = std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story/";
    TokenizerFiles files;
    files.tokenizer_json = read_file(folder + "tokenizer.json");
    files.tokenizer_config_json = read_file(folder + "tokenizer_config.json");
    return load_tokenizer(files).value();
  }();
  return tokenizer;
}

Question ask_completion(const Tokenizer& tokenizer, const std::vector<Token>& prompt, int max_tokens, Json fields) {
  Question question;
  question.prompt = prompt;
  fields["prompt"] = prompt;
  finish_question(tokenizer, "/v1/completions", max_tokens, std::move(fields), question);
  return question;
}

Question ask_chat(const Tokenizer& tokenizer, const std::string& message, int max_tokens, Json fields) {
  Question question;
  fields["messages"] = Json::array({{{"role", "user"}, {"content", message}}});
  ChatInput chat;
  chat.messages = fields["messages"].dump();
  question.prompt = tokenizer.apply_chat_template(chat).value();
  finish_question(tokenizer, "/v1/chat/completions", max_tokens, std::move(fields), question);
  return question;
}

std::vector<Token> prompt_of(uint64_t number, size_t length, int32_t vocab_size) {
  std::mt19937_64 random(number * 2654435761U + 1);
  std::vector<Token> prompt;
  while (prompt.size() < length) {
    prompt.push_back(3 + static_cast<Token>(random() % static_cast<uint64_t>(vocab_size - 3)));
  }
  return prompt;
}

std::string stop_within(const std::string& text) {
  constexpr size_t kLength = 3;
  for (size_t at = text.size() / 2; at + kLength <= text.size(); ++at) {
    std::string part = text.substr(at, kLength);
    if (std::ranges::all_of(part, [](unsigned char c) { return std::isalpha(c) != 0; })) return part;
  }
  return {};
}

std::string judge_whole(const Question& question, const StreamReader& answer) {
  if (!answer.breach().empty()) return answer.breach();
  if (answer.status() != 200) return fmt::format("status {} {}", answer.status(), answer.error_code());
  if (!answer.is_complete()) return "the answer is not complete";
  if (!answer.error_code().empty()) return "an error event: " + answer.error_code();
  if (answer.num_done() != 1) return fmt::format("{} times [DONE]", answer.num_done());
  if (answer.choices().size() != question.num_choices) return fmt::format("{} choices", answer.choices().size());
  for (const auto& [index, choice] : answer.choices()) {
    if (std::string wrong = judge_choice(question, choice, true); !wrong.empty()) return wrong;
  }
  const auto tokens = static_cast<int>(question.tokens.size() * question.num_choices);
  if (question.tells_usage != (answer.completion_tokens() >= 0)) return "usage is not told as asked for";
  if (question.tells_usage && tokens > 0 && answer.completion_tokens() != tokens) return "usage counts other tokens";
  return {};
}

std::string judge_part(const Question& question, const StreamReader& answer) {
  if (!answer.breach().empty()) return answer.breach();
  if (answer.has_head() && answer.status() != 200) return fmt::format("status {}", answer.status());
  if (!answer.error_code().empty()) return "an error event: " + answer.error_code();
  for (const auto& [index, choice] : answer.choices()) {
    if (std::string wrong = judge_choice(question, choice, false); !wrong.empty()) return wrong;
  }
  return {};
}

}  // namespace inferneo::testing
