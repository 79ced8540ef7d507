// One large body, fetched in parts over several connections and written in order.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "formats/hub_blob.h"
#include "formats/hub_requests.h"

namespace inferneo::hub {

// Fills `file` up to `size` bytes from `url`, an address at the hub, going on where the file ends. Reset, short, slow
// and failing answers are tried again; a server that knows no ranges is read as a whole. `on_bytes` is called several
// times a second with the bytes that have come, those already in the file among them.
//
// Errors: unavailable when attempts run out, malformed when the body is not as long as announced, refused for
// redirects, cancelled, those of BlobFile, and of status_error() for answers that no attempt changes.
Status fetch_into(const Session& session, BlobFile& file, const std::string& url, const std::string& name,
                  uint64_t size, const std::function<void(uint64_t)>& on_bytes);

}  // namespace inferneo::hub
