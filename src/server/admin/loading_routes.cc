// What is in memory, and which version a name means: operations, which the client may wait for.
#include <fmt/format.h>

#include <limits>
#include <utility>

#include "server/admin/admin.h"
#include "server/admin/model_json.h"
#include "server/admin/model_requests.h"

namespace inferneo {
namespace {

constexpr int32_t kOperatorsPriority = std::numeric_limits<int32_t>::min();  // before every request's

// An operator sees the loader's own words, which requests do not.
Error told_to_operator(const ManagerCore& manager, const std::string& id, Error error) {
  const Result<ModelStatus> status = manager.status(id);
  const bool loading_failed = error.code == ErrorCode::unavailable || error.code == ErrorCode::out_of_memory;
  if (loading_failed && status.ok() && status->failure) error.message = id + ": " + status->failure->message;
  return error;
}

uint64_t all_unloads(const ModelStatus& status) {
  uint64_t sum = 0;
  for (const uint64_t unloads : status.unloads) sum += unloads;
  return sum;
}

// Gets the model into memory, then goes on with `then` on the worker, which may keep the lease meanwhile.
void load_then(Admin& admin, const std::string& id, std::function<void(Result<ModelLease>)> then) {
  const auto worker = admin.worker;
  const auto on_lease = [worker, then = std::move(then)](Result<ModelLease> lease) {
    worker->post([then, lease = std::move(lease)]() mutable { then(std::move(lease)); });
  };
  admin.manager.acquire(id, on_lease, {.priority = kOperatorsPriority, .now = true});
}

std::string shown_name(Admin& admin, const NameRecord& record) {
  return name_json(record, admin.manager.catalog()->snapshot().version_of(record.name));
}

// The record of a name as it is written, which is no alias.
Result<NameRecord> name_record(Admin& admin, const std::string& name) {
  const std::shared_ptr<const Catalog> catalog = admin.manager.catalog();
  if (const NameRecord* const record = catalog->snapshot().find_name(name)) return *record;
  ASSIGN_OR_RETURN(const std::vector<ModelId> ids, catalog->resolve(name));
  return make_error(
      ErrorCode::conflict,
      fmt::format("'{}' is no name but means {}; use the name '{}'", name, ids.front().text(), ids.front().name),
      "name");
}

void begin_switch(Admin& admin, const std::shared_ptr<Exchange>& exchange, const std::string& name,
                  const std::string& version, Duration wait) {
  const std::string id = name + ":" + version;
  if (const auto found = admin.manager.catalog()->resolve(id); !found.ok()) return exchange->fail(found.error());
  const Result<std::string> operation = admin.operations->begin(Operation::Kind::switch_version, name, id);
  if (!operation.ok()) return exchange->fail(operation.error());
  load_then(admin, id, [&admin, name, version, id, operation = *operation](Result<ModelLease> lease) {
    if (!lease.ok()) {
      Error error = told_to_operator(admin.manager, id, lease.error());
      error.message = fmt::format("'{}' stays as it is: {}", name, error.message);
      return admin.operations->finish(operation, std::move(error));
    }
    const Result<NameRecord> record = admin.manager.activate(name, version);
    if (!record.ok()) return admin.operations->finish(operation, record.error());
    admin.operations->finish(operation, shown_name(admin, *record));
  });
  answer_operation(admin, exchange, *operation, wait,
                   [](Exchange& answer, const Operation& ended) { respond_json(answer, ended.result); });
}

// Into memory: a load, or the wake of one that sleeps.
void begin_load(Admin& admin, const std::shared_ptr<Exchange>& exchange, Operation::Kind kind) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"wait"});
  if (!query.ok()) return exchange->fail(query.error());
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  const Result<ModelStatus> model = admin.manager.status(exchange->request().path_param);
  if (!model.ok()) return exchange->fail(model.error());
  const std::string id = model->id;
  if (kind == Operation::Kind::wake_up) {
    if (const Status awake = admin.manager.check_wakes(*model); !awake.ok()) return exchange->fail(awake.error());
  }
  const Result<std::string> operation = admin.operations->begin(kind, id, id);
  if (!operation.ok()) return exchange->fail(operation.error());
  load_then(admin, id, [&admin, id, operation = *operation](Result<ModelLease> lease) {
    if (lease.ok()) {
      lease->reset();  // so that the answer shows a model that nobody uses
      return admin.operations->finish(operation, std::string());
    }
    admin.operations->finish(operation, told_to_operator(admin.manager, id, lease.error()));
  });
  answer_operation(admin, exchange, *operation, query->wait,
                   [&admin, id](Exchange& answer, const Operation&) { respond_model(admin, answer, id); });
}

// Out of memory: unloaded, or put to sleep.
void begin_departure(Admin& admin, const std::shared_ptr<Exchange>& exchange, Operation::Kind kind) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"wait", "timeout"});
  if (!query.ok()) return exchange->fail(query.error());
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  const Result<ModelStatus> model = admin.manager.status(exchange->request().path_param);
  if (!model.ok()) return exchange->fail(model.error());
  const std::string id = model->id;
  const bool sleeps = kind == Operation::Kind::sleep;
  const Result<std::string> operation = admin.operations->begin(kind, id);
  if (!operation.ok()) return exchange->fail(operation.error());
  ++admin.pending_departures;  // first, so that no event of it is missed
  const TimePoint deadline = admin.clock.now() + query->timeout;
  const Status asked = sleeps ? admin.manager.sleep(id, deadline) : admin.manager.unload(id, deadline);
  if (!asked.ok()) {
    --admin.pending_departures;
    admin.operations->finish(*operation, asked.error());
    return exchange->fail(asked.error());
  }
  admin.worker->post([&admin, row = Admin::Departure{*operation, id, all_unloads(*model), sleeps, model->life.sleeps}] {
    admin.departures.push_back(row);
    finish_departures(admin);
  });
  answer_operation(admin, exchange, *operation, query->wait,
                   [&admin, id](Exchange& answer, const Operation&) { respond_model(admin, answer, id); });
}

}  // namespace

void handle_load(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  begin_load(admin, exchange, Operation::Kind::load);
}

void handle_wake_up(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  begin_load(admin, exchange, Operation::Kind::wake_up);
}

void handle_unload(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  begin_departure(admin, exchange, Operation::Kind::unload);
}

void handle_sleep(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  begin_departure(admin, exchange, Operation::Kind::sleep);
}

void finish_departures(Admin& admin) {
  std::erase_if(admin.departures, [&](const Admin::Departure& row) {
    const Result<ModelStatus> status = admin.manager.status(row.model);
    // One that somebody asks for again at once is out of memory for a moment alone: its counts tell.
    const bool unloaded = !status.ok() || status->state == ModelState::unloaded ||
                          status->state == ModelState::failed || all_unloads(*status) > row.unloads_before;
    const bool slept =
        row.sleeps && status.ok() && (status->state == ModelState::sleeping || status->life.sleeps > row.sleeps_before);
    if (!unloaded && !slept) return false;
    --admin.pending_departures;
    if (row.sleeps && !slept) {
      admin.operations->finish(row.operation,
                               make_error(ErrorCode::conflict, row.model + " was unloaded instead of put to sleep; the "
                                                                           "server's log says why"));
    } else {
      admin.operations->finish(row.operation, std::string());
    }
    return true;
  });
}

void handle_active_version(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"wait"});
  if (!query.ok()) return exchange->fail(query.error());
  const Result<VersionChange> change = read_version_change(exchange->take_body());
  if (!change.ok()) return exchange->fail(change.error());
  const Result<NameRecord> record = name_record(admin, exchange->request().path_param);
  if (!record.ok()) return exchange->fail(record.error());
  const std::string name = record->name;
  switch (change->kind) {
    case VersionChange::Kind::set:
      return begin_switch(admin, exchange, name, change->version, query->wait);
    case VersionChange::Kind::rollback:
      if (record->previous) return begin_switch(admin, exchange, name, *record->previous, query->wait);
      return exchange->fail(
          make_error(ErrorCode::conflict, fmt::format("'{}' has no earlier active version to go back to", name)));
    case VersionChange::Kind::follow_policy:
      return admin.in_line(exchange, [&admin, exchange, name] {
        const Result<NameRecord> followed = admin.manager.follow_policy(name);
        if (!followed.ok()) return exchange->fail(followed.error());
        respond_json(*exchange, shown_name(admin, *followed));
      });
  }
}

void handle_policy(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  Result<VersionPolicy> policy = read_policy(exchange->take_body());
  if (!policy.ok()) return exchange->fail(policy.error());
  const Result<NameRecord> record = name_record(admin, exchange->request().path_param);
  if (!record.ok()) return exchange->fail(record.error());
  admin.in_line(exchange, [&admin, exchange, name = record->name, policy = std::move(*policy)] {
    const Result<NameRecord> changed = admin.manager.set_policy(name, policy);
    if (!changed.ok()) return exchange->fail(changed.error());
    respond_json(*exchange, shown_name(admin, *changed));
  });
}

}  // namespace inferneo
