#include "server/admin/traffic_routes.h"

#include <memory>
#include <utility>

#include "server/admin/worker.h"

namespace inferneo {
namespace {

struct TrafficWork {
  explicit TrafficWork(const TrafficDesk& desk_in) : desk(desk_in) {}

  const TrafficDesk desk;
  AdminWorker worker;
};

}  // namespace

std::vector<Route> traffic_routes(const TrafficDesk& desk) {
  const auto work = std::make_shared<TrafficWork>(desk);
  std::vector<Route> routes;
  for (const TrafficOperation& operation : traffic_operations()) {
    routes.emplace_back(
        operation.method, operation.path, AuthPolicy::admin_key,
        [work, run = operation.run](std::shared_ptr<Exchange> exchange) {
          const bool in_line = work->worker.try_post([desk = &work->desk, run, exchange] {
            Result<TrafficAnswer> answer = run(*desk, exchange->request().path_param, exchange->take_body());
            if (!answer.ok()) return exchange->fail(answer.error());
            respond_json(*exchange, std::move(answer->json), answer->status);
          });
          if (in_line) return;
          exchange->fail(make_error(ErrorCode::queue_full, "Too many changes wait to be made; try again later."));
        });
  }
  return routes;
}

}  // namespace inferneo
