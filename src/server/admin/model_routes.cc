// What is registered: listing, registering, removing, and the marks of a model. Changes wait for the disk, on the
// worker.
#include <utility>

#include "server/admin/admin.h"
#include "server/admin/model_json.h"
#include "server/admin/model_requests.h"

namespace inferneo {
namespace {

// The model as it is after a change that the worker makes.
void change_model(Admin& admin, const std::shared_ptr<Exchange>& exchange,
                  std::function<Status(const std::string& id)> change) {
  admin.in_line(exchange, [&admin, exchange, change = std::move(change)] {
    const std::string& id = exchange->request().path_param;
    if (const Status changed = change(id); !changed.ok()) return exchange->fail(changed.error());
    respond_model(admin, *exchange, id);
  });
}

void set_pinned(Admin& admin, const std::shared_ptr<Exchange>& exchange, bool pinned) {
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  change_model(admin, exchange,
               [&admin, pinned](const std::string& id) { return admin.manager.set_pinned(id, pinned); });
}

}  // namespace

void handle_list(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const ModelStatus& status : admin.manager.statuses()) write_model(json, status);
  json.end_array().key("memory").begin_object();
  json.field("budget_bytes", admin.ledger.budget()).field("used_bytes", admin.ledger.used());
  json.end_object().end_object();
  respond_json(*exchange, json.take());
}

void handle_show(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  respond_model(admin, *exchange, exchange->request().path_param);
}

void handle_register(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  Result<ModelRegistration> registration = read_registration(exchange->take_body());
  if (!registration.ok()) return exchange->fail(registration.error());
  admin.in_line(exchange, [&admin, exchange, registration = std::move(*registration)] {
    const Result<ModelId> id = admin.manager.register_model(registration);
    if (!id.ok()) return exchange->fail(id.error());
    respond_model(admin, *exchange, id->text(), 201);
  });
}

void handle_remove(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"timeout"});
  if (!query.ok()) return exchange->fail(query.error());
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  admin.in_line(exchange, [&admin, exchange, timeout = query->timeout] {
    const Result<ModelStatus> model = admin.manager.status(exchange->request().path_param);
    if (!model.ok()) return exchange->fail(model.error());
    const auto dropped = admin.manager.remove_model(model->id, admin.clock.now() + timeout);
    if (!dropped.ok()) return exchange->fail(dropped.error());
    JsonWriter json;
    json.begin_object().field("id", model->id).field("removed", true).key("dropped_aliases").begin_array();
    for (const std::string& alias : *dropped) json.string(alias);
    json.end_array().end_object();
    respond_json(*exchange, json.take());
  });
}

void handle_pin(Admin& admin, const std::shared_ptr<Exchange>& exchange) { set_pinned(admin, exchange, true); }

void handle_unpin(Admin& admin, const std::shared_ptr<Exchange>& exchange) { set_pinned(admin, exchange, false); }

void handle_keep_alive(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const Result<KeepAliveChange> wanted = read_keep_alive_change(exchange->take_body());
  if (!wanted.ok()) return exchange->fail(wanted.error());
  change_model(admin, exchange, [&admin, seconds = wanted->seconds](const std::string& id) {
    return admin.manager.set_keep_alive(id, seconds);
  });
}

void handle_amend(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  Result<ModelAmendment> amendment = read_amendment(exchange->take_body());
  if (!amendment.ok()) return exchange->fail(amendment.error());
  change_model(admin, exchange, [&admin, amendment = std::move(*amendment)](const std::string& id) {
    return admin.manager.amend(id, amendment);
  });
}

void handle_set_alias(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  Result<std::string> target = read_target(exchange->take_body());
  if (!target.ok()) return exchange->fail(target.error());
  admin.in_line(exchange, [&admin, exchange, target = std::move(*target)] {
    const Result<AliasRecord> alias = admin.manager.set_alias(exchange->request().path_param, target);
    if (!alias.ok()) return exchange->fail(alias.error());
    JsonWriter json;
    json.begin_object().field("alias", alias->alias).field("target", alias->target()).end_object();
    respond_json(*exchange, json.take());
  });
}

void handle_plan(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  Result<std::vector<PlanRequest>> wanted = read_plan(exchange->take_body());
  if (!wanted.ok()) return exchange->fail(wanted.error());
  admin.in_line(exchange, [&admin, exchange, wanted = std::move(*wanted)] {  // it reads the files' headers
    const Result<ModelPlan> plan = admin.manager.plan(wanted);
    if (!plan.ok()) return exchange->fail(plan.error());
    respond_json(*exchange, plan_json(*plan));
  });
}

void handle_remove_alias(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  admin.in_line(exchange, [&admin, exchange] {
    const std::string& alias = exchange->request().path_param;
    if (const Status removed = admin.manager.remove_alias(alias); !removed.ok()) return exchange->fail(removed.error());
    JsonWriter json;
    json.begin_object().field("alias", alias).field("removed", true).end_object();
    respond_json(*exchange, json.take());
  });
}

}  // namespace inferneo
