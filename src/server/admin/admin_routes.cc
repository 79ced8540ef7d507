#include "server/admin/admin_routes.h"

#include <array>
#include <memory>
#include <utility>

namespace inferneo {
namespace {

struct AdminRow {
  Method method;
  std::string_view path;
  AdminHandler handler;
};

constexpr std::array kRoutes = {
    AdminRow{Method::get, "/admin/models", handle_list},
    AdminRow{Method::post, "/admin/models", handle_register},
    AdminRow{Method::get, "/admin/models/{id}", handle_show},
    AdminRow{Method::patch, "/admin/models/{id}", handle_amend},
    AdminRow{Method::del, "/admin/models/{id}", handle_remove},
    AdminRow{Method::post, "/admin/models/{id}/load", handle_load},
    AdminRow{Method::post, "/admin/models/{id}/unload", handle_unload},
    AdminRow{Method::post, "/admin/models/{id}/sleep", handle_sleep},
    AdminRow{Method::post, "/admin/models/{id}/wake-up", handle_wake_up},
    AdminRow{Method::post, "/admin/models/{id}/pin", handle_pin},
    AdminRow{Method::post, "/admin/models/{id}/unpin", handle_unpin},
    AdminRow{Method::put, "/admin/models/{id}/keep-alive", handle_keep_alive},
    AdminRow{Method::put, "/admin/models/{id}/active-version", handle_active_version},
    AdminRow{Method::put, "/admin/models/{id}/policy", handle_policy},
    AdminRow{Method::post, "/admin/models/{id}/verify", handle_verify},
    AdminRow{Method::put, "/admin/aliases/{id}", handle_set_alias},
    AdminRow{Method::del, "/admin/aliases/{id}", handle_remove_alias},
    AdminRow{Method::get, "/admin/operations", handle_operations},
    AdminRow{Method::get, "/admin/operations/{id}", handle_operation},
    AdminRow{Method::post, "/admin/pull", handle_pull},
    AdminRow{Method::post, "/admin/plan", handle_plan},
    AdminRow{Method::get, "/admin/events", handle_events},
};

}  // namespace

std::vector<Route> admin_routes(AdminContext context) {
  const auto admin = std::make_shared<Admin>(context.manager, context.ledger, context.clock, std::move(context.pull));
  std::vector<Route> routes;
  for (const AdminRow& row : kRoutes) {
    routes.emplace_back(
        row.method, row.path, AuthPolicy::admin_key,
        [admin, handler = row.handler](std::shared_ptr<Exchange> exchange) { handler(*admin, exchange); });
  }
  return routes;
}

}  // namespace inferneo
