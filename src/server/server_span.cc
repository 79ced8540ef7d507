#include "server/server_span.h"

#include <utility>

namespace inferneo {
namespace {

// Several fields of a list's name are one list (RFC 9110, 5.3); empty where it is too long to be carried.
std::string joined(const HttpHead& head, std::string_view name) {
  std::string text;
  for (const auto& [field, value] : head.headers) {
    if (field != name) continue;
    if (text.size() + value.size() > kMaxTraceState) return {};
    if (!text.empty()) text += ',';
    text += value;
  }
  return text;
}

}  // namespace

std::shared_ptr<const RequestTrace> ServerSpan::begin(const HttpHead& head, const Route& route,
                                                      std::string_view request_id, TimePoint now) {
  if (tracer_ == nullptr || route.method != Method::post || route.policy != AuthPolicy::api_key) return nullptr;
  // Twice is no traceparent: nobody could say which one holds.
  const std::string* const parent = head.header_count("traceparent") == 1 ? head.header("traceparent") : nullptr;
  trace_ = parent == nullptr ? tracer_->begin({}, {}, now) : tracer_->begin(*parent, joined(head, "tracestate"), now);
  if (trace_ == nullptr) return nullptr;
  route_ = &route;
  request_id_ = request_id;
  error_.clear();
  status_ = 0;
  left_ = false;
  return trace_;
}

void ServerSpan::end() {
  const std::shared_ptr<const RequestTrace> trace = std::exchange(trace_, nullptr);
  if (trace == nullptr) return;
  std::string method(method_name(route_->method));
  Span span = trace->request_span(method + " " + route_->path, std::chrono::steady_clock::now());
  span.set("http.request.method", std::move(method)).set_text("http.route", route_->path);
  // A path with a parameter holds a word of the client's.
  if (route_->path.find('{') == std::string::npos) span.set_text("url.path", route_->path);
  span.set("inferneo.request.id", std::move(request_id_));
  if (status_ != 0) span.set("http.response.status_code", int64_t{status_});
  if (!error_.empty()) {
    span.set("error.type", error_);
    span.failed = status_ >= 500 || status_ < 400;  // an error within a stream comes after its 200
  } else if (left_) {
    span.set_text("error.type", error_info(ErrorCode::cancelled).name);  // no failure of ours
  }
  trace->send(std::move(span));
}

}  // namespace inferneo
