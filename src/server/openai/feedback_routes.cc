// POST /v1/feedback: what a client thinks of an answer, by the answer's id. Counted in the A/B test that chose it.
#include <array>

#include "server/json_object.h"
#include "server/openai/openai_routes.h"

namespace inferneo {
namespace {

struct FeedbackRequest {
  std::string id = {};
  std::optional<double> score = {};
  std::string rating = {};
};
constexpr std::array kFields = {
    json_field<&FeedbackRequest::id>("id"),
    json_field<&FeedbackRequest::score>("score"),
    json_field<&FeedbackRequest::rating>("rating"),
};

Result<FeedbackRequest> parse_feedback(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  FeedbackRequest request;
  RETURN_IF_ERROR(read_object(json, "", kFields, request));
  if (request.id.empty()) return field_error("id", "is required: the `id` of a completion");
  if (request.score.has_value() == !request.rating.empty()) {
    return field_error("score", "or 'rating' is required, and not both");
  }
  if (request.rating == "up") {
    request.score = 1.0;
  } else if (request.rating == "down") {
    request.score = 0.0;
  } else if (!request.rating.empty()) {
    return field_error("rating", "must be up or down");
  }
  return request;
}

// An answer's id is its request's, behind what tells the kind of the answer.
std::string_view request_id_of(std::string_view id) {
  for (const std::string_view prefix : {"chatcmpl-", "cmpl-"}) {
    if (id.starts_with(prefix)) return id.substr(prefix.size());
  }
  return id;
}

}  // namespace

void handle_feedback(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  const Result<FeedbackRequest> request = parse_feedback(exchange->take_body());
  if (!request.ok()) return exchange->fail(request.error());
  const auto receipt = service.record_feedback(std::string(request_id_of(request->id)), *request->score);
  if (!receipt.ok()) return exchange->fail(receipt.error());
  JsonWriter json;
  json.begin_object().field("object", "feedback").field("id", std::string_view(request->id));
  json.field("recorded", !receipt->test.empty());
  write_text_or_null(json, "test", receipt->test);
  write_text_or_null(json, "arm", receipt->arm);
  json.end_object();
  respond_json(*exchange, json.take());
}

}  // namespace inferneo
