// The operators' API of shadows: /admin/shadow and below. docs/shadow.md has the objects.
//
// Handlers run on io threads and block for nothing: a change is one replacement in memory. Shadows of the API are
// forgotten when the server ends; the book outlives the routes.
#pragma once

#include <vector>

#include "server/route_table.h"
#include "serving/shadow_book.h"

namespace inferneo {

std::vector<Route> shadow_routes(ShadowBook& shadows);

}  // namespace inferneo
