// POST /tokenize and /detokenize, as vLLM has them.
#include <nlohmann/json.hpp>

#include "server/json_fields.h"
#include "server/json_writer.h"
#include "server/openai/openai_routes.h"
#include "server/openai/request_draft.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTokens = 1024 * 1024;  // to text: an id of six bytes may stand for a hundred

// Of what the name means rather than of what is listed: name:version is a model's name, too. 0: it is gone meanwhile.
int32_t max_model_len(const InferenceService& service, const std::string& name) {
  const Result<ServedModel> model = service.model(name);
  return model.ok() ? model->max_model_len : 0;
}

struct TokenizeRequest {
  std::string model;
  std::string prompt;
  std::optional<ChatInput> chat;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

Result<TokenizeRequest> parse_tokenize(std::string_view body) {
  ASSIGN_OR_RETURN(Json json, parse_json_object(body));
  TokenizeRequest request;
  for (const auto& [field, flag] : {std::pair<const char*, bool*>{"add_special_tokens", &request.add_special_tokens},
                                    {"return_token_strs", &request.return_token_strs}}) {
    if (const auto value = json.find(field); value != json.end() && !value->is_null()) {
      ASSIGN_OR_RETURN(*flag, read_bool(*value, field));
    }
    json.erase(field);
  }
  if (json.contains("messages")) {
    ASSIGN_OR_RETURN(RequestDraft draft, parse_chat_request(json.dump()));
    request.model = draft.request.model;
    request.chat = ChatInput{draft.messages, draft.tools, draft.template_kwargs, draft.add_generation_prompt,
                             draft.continue_final_message};
    return request;
  }
  for (const auto& [key, value] : json.items()) {
    if (key != "model" && key != "prompt") return field_error(key.substr(0, 64), "is not a field of this request");
  }
  if (!json.contains("prompt")) return field_error("prompt", "or 'messages' is required");
  ASSIGN_OR_RETURN(request.prompt, read_string(json["prompt"], "prompt", SIZE_MAX));
  if (json.contains("model")) {
    ASSIGN_OR_RETURN(request.model, read_string(json["model"], "model", 512));
  }
  return request;
}

Result<std::string> tokenize(const InferenceService& service, const Tokenizer& tokenizer,
                             const TokenizeRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<Token> tokens, request.chat
                                                        ? tokenizer.apply_chat_template(*request.chat)
                                                        : tokenizer.encode(request.prompt, request.add_special_tokens));
  JsonWriter json;
  json.begin_object().field("count", tokens.size()).field("max_model_len", max_model_len(service, request.model));
  json.key("tokens").begin_array();
  for (const Token token : tokens) json.integer(token);
  json.end_array().key("token_strs");
  if (request.return_token_strs) {
    json.begin_array();
    for (const Token token : tokens) json.string(tokenizer.token_bytes(token));
    json.end_array();
  } else {
    json.null();
  }
  json.end_object();
  return json.take();
}

struct DetokenizeRequest {
  std::string model;
  std::vector<Token> tokens;
};

Result<DetokenizeRequest> parse_detokenize(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  DetokenizeRequest request;
  if (json.contains("model") && !json["model"].is_null()) {
    ASSIGN_OR_RETURN(request.model, read_string(json["model"], "model", 512));
  }
  if (!json.contains("tokens")) return field_error("tokens", "is required");
  ASSIGN_OR_RETURN(request.tokens, read_token_ids(json["tokens"], "tokens", kMaxTokens));
  return request;
}

Result<std::string> detokenize(const Tokenizer& tokenizer, const DetokenizeRequest& request) {
  for (const Token token : request.tokens) {
    if (token >= tokenizer.vocab_size()) return field_error("tokens", "holds an id outside the model's vocabulary");
  }
  ASSIGN_OR_RETURN(const std::string text, tokenizer.decode(request.tokens, false));
  JsonWriter out;
  out.begin_object().field("prompt", text).end_object();
  return out.take();
}

void respond(Exchange& exchange, Result<std::string> body) {
  if (!body.ok()) return exchange.fail(body.error());
  HttpResponse response;
  response.body = std::move(body).value();
  exchange.respond(std::move(response));
}

}  // namespace

void handle_tokenize(const std::shared_ptr<InferenceService>& service, const std::shared_ptr<Exchange>& exchange) {
  Result<TokenizeRequest> parsed = parse_tokenize(exchange->take_body());
  if (!parsed.ok()) return exchange->fail(parsed.error());
  const std::string model = parsed->model;
  service->with_tokenizer(model, [service, exchange, request = std::move(parsed).value()](auto tokenizer) {
    if (!tokenizer.ok()) return exchange->fail(with_retry_after(*service, request.model, tokenizer.error()));
    respond(*exchange, tokenize(*service, **tokenizer, request));
  });
}

void handle_detokenize(const std::shared_ptr<InferenceService>& service, const std::shared_ptr<Exchange>& exchange) {
  Result<DetokenizeRequest> parsed = parse_detokenize(exchange->take_body());
  if (!parsed.ok()) return exchange->fail(parsed.error());
  const std::string model = parsed->model;
  service->with_tokenizer(model, [service, exchange, request = std::move(parsed).value()](auto tokenizer) {
    if (!tokenizer.ok()) return exchange->fail(with_retry_after(*service, request.model, tokenizer.error()));
    respond(*exchange, detokenize(**tokenizer, request));
  });
}

}  // namespace inferneo
