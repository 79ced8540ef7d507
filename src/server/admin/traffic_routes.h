// The admin routes about rules, A/B tests and routes (traffic_operations.h), on one worker thread of theirs, so that no
// io thread waits for a disk. What the desk names must outlive the server with these routes.
#pragma once

#include <vector>

#include "server/admin/traffic_operations.h"
#include "server/route_table.h"

namespace inferneo {

std::vector<Route> traffic_routes(const TrafficDesk& desk);

}  // namespace inferneo
