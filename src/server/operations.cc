#include "server/operations.h"

#include "server/exposition.h"
#include "server/json_writer.h"
#include "server/stats_routes.h"

namespace inferneo {
namespace {

std::string status_body(std::string_view status) {
  JsonWriter json;
  json.begin_object().field("status", status).end_object();
  return json.take();
}

}  // namespace

std::vector<Route> operations_routes(std::shared_ptr<InferenceService> service, std::span<const MetricInfo> catalogue) {
  return {
      Route(Method::get, "/health", AuthPolicy::open,
            [](std::shared_ptr<Exchange> exchange) { respond_json(*exchange, status_body("ok")); }),
      Route(Method::get, "/ready", AuthPolicy::open,
            [service](std::shared_ptr<Exchange> exchange) {
              const Status status = service->ready();
              if (status.ok()) {
                respond_json(*exchange, status_body("ready"));
              } else {  // 503 whatever the reason: that is what a probe asks
                exchange->fail(make_error(ErrorCode::unavailable, status.error().message));
              }
            }),
      Route(Method::get, "/version", AuthPolicy::open,
            [](std::shared_ptr<Exchange> exchange) {
              JsonWriter json;
              json.begin_object().field("version", INFERNEO_VERSION).end_object();
              respond_json(*exchange, json.take());
            }),
      Route(Method::get, "/metrics", AuthPolicy::metrics,
            [service, catalogue](std::shared_ptr<Exchange> exchange) {
              HttpResponse response;
              response.content_type = "text/plain; version=0.0.4; charset=utf-8";
              response.body = render_metrics(service->metrics(), catalogue);
              exchange->respond(std::move(response));
            }),
      stats_route(service),
  };
}

}  // namespace inferneo
