// The limits of a request's key, as HTTP says them: its place among the requests of that key, and x-ratelimit-... of
// the answer. Every handler that generates asks for a place before it reads anything.
#pragma once

#include <memory>
#include <string>

#include "server/exchange.h"
#include "serving/inference_service.h"

namespace inferneo {

// False: refused, and answered. `ticket` goes into each GenerateRequest of this HTTP request, and nowhere else: the
// place is free again when the last of them is gone. It is null where nobody is limited.
bool admit(InferenceService& service, const std::shared_ptr<Exchange>& exchange,
           std::shared_ptr<AdmissionTicket>& ticket);

// As OpenAI's clients know them; nothing for what is not limited.
HeaderList rate_limit_headers(const RateLimits& limits);
std::string rate_limit_reset(Duration left);  // "120ms", "1.5s", "6m0s"

}  // namespace inferneo
