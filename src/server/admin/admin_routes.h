// The operators' API: which models there are, what is in memory, versions, downloads, events. docs/admin-api.md.
//
// Never blocks an io thread: what writes the registry runs on one worker thread, what takes its time is an operation
// that answers 202 unless the client waits for it. The manager, ledger and clock must outlive the server with these
// routes; what is under way when the server ends goes on in the manager, but for downloads, which end.
#pragma once

#include <vector>

#include "server/admin/admin.h"
#include "server/route_table.h"

namespace inferneo {

struct AdminContext {
  ManagerCore& manager;
  const MemoryLedger& ledger;
  const Clock& clock;  // the manager's
  PullFunction pull;
};

std::vector<Route> admin_routes(AdminContext context);

}  // namespace inferneo
