// What rules and A/B tests may know of a request from its head: headers, keys and cookies left out, and what it sticks
// to.
#pragma once

#include "server/http_message.h"
#include "serving/inference_service.h"

namespace inferneo {

void add_head_traits(const HttpHead& head, RequestTraits& traits);

}  // namespace inferneo
