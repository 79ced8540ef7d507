// GET /stats: the server's numbers as JSON, for pages and people. docs/metrics.md.
#pragma once

#include <memory>
#include <string>

#include "server/route_table.h"
#include "serving/inference_service.h"

namespace inferneo {

std::string stats_json(const ServerStats& stats);
Route stats_route(std::shared_ptr<InferenceService> service);

}  // namespace inferneo
