// POST /v1/embeddings.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "server/head_traits.h"
#include "server/json_fields.h"
#include "server/json_object.h"
#include "server/openai/openai_routes.h"
#include "server/rate_limits.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

constexpr size_t kMaxInputs = 2048;  // OpenAI's
constexpr size_t kMaxInputTokens = 1024 * 1024;
constexpr size_t kMaxNameBytes = 512;
constexpr std::array<std::string_view, 5> kEmbeddingFields = {"model", "input", "encoding_format", "dimensions",
                                                              "user"};

struct EmbeddingsRequest {
  EmbedRequest embed;
  bool as_base64 = false;
  size_t dimensions = 0;  // 0: all
};

Status read_inputs(const Json& input, EmbedRequest& request) {
  const auto add_text = [&](const Json& text, std::string_view name) -> Status {
    ASSIGN_OR_RETURN(std::string value, read_string(text, name, SIZE_MAX));
    if (value.empty()) return field_error(name, "must not be an empty string");
    request.inputs.emplace_back(std::move(value));
    return ok_status();
  };
  const auto add_tokens = [&](const Json& tokens, std::string_view name) -> Status {
    ASSIGN_OR_RETURN(std::vector<Token> ids, read_token_ids(tokens, name, kMaxInputTokens));
    if (ids.empty()) return field_error(name, "must not be empty");
    request.inputs.emplace_back(std::move(ids));
    return ok_status();
  };
  if (input.is_string()) return add_text(input, "input");
  if (!input.is_array() || input.empty()) {
    return field_error("input", "must be a string, a list of strings, a list of token ids or a list of such lists");
  }
  if (input.front().is_number()) return add_tokens(input, "input");
  if (input.size() > kMaxInputs) {
    return field_error("input", fmt::format("must not hold more than {} texts", kMaxInputs));
  }
  for (size_t i = 0; i < input.size(); ++i) {
    const std::string name = fmt::format("input[{}]", i);
    RETURN_IF_ERROR(input[i].is_string() ? add_text(input[i], name) : add_tokens(input[i], name));
  }
  return ok_status();
}

Result<EmbeddingsRequest> parse_embeddings(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  EmbeddingsRequest request;
  for (const auto& member : json.items()) {
    const std::string& key = member.key();
    const Json& value = member.value();
    if (std::find(kEmbeddingFields.begin(), kEmbeddingFields.end(), key) == kEmbeddingFields.end())
      return unknown_json_field("", key, kEmbeddingFields);
    if (value.is_null()) continue;
    if (key == "model") {
      ASSIGN_OR_RETURN(request.embed.model, read_string(value, key, kMaxNameBytes));
    } else if (key == "encoding_format") {
      ASSIGN_OR_RETURN(const std::string format, read_string(value, key, kMaxNameBytes));
      if (format != "float" && format != "base64") return field_error(key, "must be \"float\" or \"base64\"");
      request.as_base64 = format == "base64";
    } else if (key == "dimensions") {
      ASSIGN_OR_RETURN(const int64_t dimensions, read_integer(value, key, 1, INT32_MAX));
      request.dimensions = static_cast<size_t>(dimensions);
    } else if (key == "user") {
      ASSIGN_OR_RETURN(request.embed.user, read_string(value, key, kMaxNameBytes));
    }
  }
  const auto input = json.find("input");
  if (input == json.end() || input->is_null()) return field_error("input", "is required");
  RETURN_IF_ERROR(read_inputs(*input, request.embed));
  return request;
}

// The first of a vector's numbers, as a vector of the length 1.
void scale_to_one(std::span<float> vector) {
  double squares = 0.0;
  for (const float value : vector) squares += static_cast<double>(value) * static_cast<double>(value);
  if (squares == 0.0) return;
  const double scale = 1.0 / std::sqrt(squares);
  for (float& value : vector) value = static_cast<float>(static_cast<double>(value) * scale);
}

// Little-endian floats.
std::string to_base64(std::span<const float> vector) {
  static_assert(std::endian::native == std::endian::little);
  const size_t bytes = vector.size_bytes();
  std::string text(4 * ((bytes + 2) / 3) + 1, '\0');  // and a null, which the library adds
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                     reinterpret_cast<const unsigned char*>(vector.data()), static_cast<int>(bytes));
  text.resize(static_cast<size_t>(length));
  return text;
}

Result<std::string> write_vectors(EmbedAnswer answer, const EmbeddingsRequest& request) {
  const size_t width = answer.dimensions;
  const size_t kept = request.dimensions == 0 ? width : request.dimensions;
  if (kept > width) {
    return field_error("dimensions", fmt::format("must be at most {}, which is what the model has", width));
  }
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (size_t i = 0; i * width < answer.vectors.size(); ++i) {
    const std::span<float> vector = std::span(answer.vectors).subspan(i * width, kept);
    if (kept < width) scale_to_one(vector);
    json.begin_object().field("object", "embedding").field("index", i).key("embedding");
    if (request.as_base64) {
      json.string(to_base64(vector));
    } else {
      json.begin_array();
      for (const float value : vector) write_value(json, value);
      json.end_array();
    }
    json.end_object();
  }
  json.end_array().field("model", answer.model).key("usage").begin_object();
  json.field("prompt_tokens", answer.prompt_tokens).field("total_tokens", answer.prompt_tokens);
  json.end_object().end_object();
  return json.take();
}

}  // namespace

void handle_embeddings(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  std::shared_ptr<AdmissionTicket> ticket;
  if (!admit(service, exchange, ticket)) return;
  Result<EmbeddingsRequest> parsed = parse_embeddings(exchange->take_body());
  if (!parsed.ok()) return exchange->fail(parsed.error());
  EmbedRequest embed = std::move(parsed->embed);
  embed.ticket = std::move(ticket);
  if (service.wants_traits()) add_head_traits(exchange->request().head, embed.traits);
  embed.request_id = exchange->request_id();
  embed.on_route = [exchange](const std::string& route) { exchange->set_route(route); };
  const std::string model = embed.model;
  auto done = [&service, exchange, model, request = std::move(parsed).value()](Result<EmbedAnswer> answer) {
    if (!answer.ok()) return exchange->fail(with_retry_after(service, model, answer.error()));
    const Result<std::string> reply = write_vectors(std::move(answer).value(), request);
    if (!reply.ok()) return exchange->fail(reply.error());
    respond_json(*exchange, *reply);
  };
  const std::shared_ptr<GenerationHandle> handle = service.embed(std::move(embed), std::move(done));
  exchange->on_abandoned([handle] {
    if (handle != nullptr) handle->cancel();
  });
}

}  // namespace inferneo
