// The routes for operators: /health (the process lives), /ready (tokens advance), /version, /metrics, /stats.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "server/route_table.h"
#include "serving/inference_service.h"
#include "serving/metrics_catalogue.h"

namespace inferneo {

std::vector<Route> operations_routes(std::shared_ptr<InferenceService> service, std::span<const MetricInfo> catalogue);

}  // namespace inferneo
