// What operators do to rules, A/B tests and routes: one row for each, for the admin routes of a server and for the
// commands that work on a registry no server has. docs/admin-api.md.
//
// On the calling thread, which waits for the registry's disk, and in explain() for the headers of a model's files.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "manager/manager_core.h"
#include "server/http_message.h"
#include "serving/routed_service.h"
#include "serving/traffic.h"

namespace inferneo {

struct TrafficDesk {
  Traffic& traffic;
  const Clock& clock;                     // the traffic's
  const RoutedService* routed = nullptr;  // these two for explain() alone
  ManagerCore* manager = nullptr;
};

struct TrafficAnswer {
  std::string json;
  int status = 200;
};

struct TrafficOperation {
  Method method;
  std::string_view path;  // `{id}` is the name of a rule or a test
  Result<TrafficAnswer> (*run)(const TrafficDesk& desk, const std::string& id, const std::string& body);
};

std::span<const TrafficOperation> traffic_operations();
const TrafficOperation* find_traffic_operation(Method method, std::string_view path);  // null: there is none

}  // namespace inferneo
