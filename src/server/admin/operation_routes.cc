// GET /admin/operations and /admin/operations/{id}; POST /admin/pull, whose downloads run on threads of their own.
#include <fmt/format.h>

#include <exception>
#include <utility>

#include "base/log.h"
#include "server/admin/admin.h"
#include "server/admin/model_json.h"
#include "server/admin/model_requests.h"
#include "server/json_fields.h"

namespace inferneo {
namespace {

std::string snapshot_json(const HubSnapshot& snapshot) {
  JsonWriter json;
  json.begin_object().field("commit", snapshot.commit).field("path", snapshot.path);
  json.field("files", snapshot.files.size()).field("bytes", snapshot.bytes);
  json.field("bytes_downloaded", snapshot.bytes_downloaded).end_object();
  return json.take();
}

LoadStage stage_of(const HubProgress& progress) {
  LoadStage stage;
  stage.stage = progress.waiting ? "waiting for another download of it" : "downloading " + progress.file;
  stage.bytes_done = progress.bytes_done;
  stage.bytes_total = progress.bytes_total;
  return stage;
}

Result<HubSnapshot> download(const PullFunction& pull, const HubPull& wanted) {
  try {
    return pull(wanted);
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, fmt::format("the download failed: {}", failure.what()));
  }
}

// Threads whose operation has ended have nothing more to do than to end.
void reap(Admin& admin) {
  std::erase_if(admin.pulls, [&](const auto& pull) {
    const std::optional<Operation> operation = admin.operations->find(pull.first);
    return !operation || operation->state != Operation::State::running;
  });
}

Result<std::string> begin_pull(Admin& admin, const HubId& id) {
  const std::string name = id.repository + "@" + id.revision;
  const std::lock_guard lock(admin.pulls_mutex);
  if (const auto same = admin.operations->find_running(Operation::Kind::pull, name)) return same->id;
  reap(admin);
  if (admin.ending) return make_error(ErrorCode::unavailable, "The server is shutting down.");
  if (admin.pulls.size() >= Admin::kMaxPulls) {
    return make_error(ErrorCode::queue_full, "Too many downloads are under way; try again when one has ended.");
  }
  ASSIGN_OR_RETURN(const std::string operation, admin.operations->begin(Operation::Kind::pull, name));
  const auto work = [pull = admin.pull, table = admin.operations, operation, id](std::stop_token stop) {
    HubPull wanted;
    wanted.id = id;
    wanted.stop = std::move(stop);
    wanted.on_progress = [&](const HubProgress& progress) { table->report(operation, stage_of(progress)); };
    Result<HubSnapshot> snapshot = download(pull, wanted);
    if (!snapshot.ok()) return table->finish(operation, std::move(snapshot).error());
    table->finish(operation, snapshot_json(*snapshot));
  };
  admin.pulls.emplace(operation, std::jthread(work));
  return operation;
}

}  // namespace

void handle_operations(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (Operation& operation : admin.operations->list()) {
    write_operation(json, with_progress(admin, std::move(operation)));
  }
  json.end_array().end_object();
  respond_json(*exchange, json.take());
}

void handle_operation(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const std::string& id = exchange->request().path_param;
  std::optional<Operation> operation = admin.operations->find(id);
  if (!operation) {
    return exchange->fail(
        make_error(ErrorCode::not_found, fmt::format("There is no operation '{}'; the last {} finished ones are kept.",
                                                     id.substr(0, 64), OperationTable::kKept)));
  }
  respond_json(*exchange, operation_json(with_progress(admin, std::move(*operation))));
}

void handle_pull(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"wait"});
  if (!query.ok()) return exchange->fail(query.error());
  const Result<std::string> text = read_hub_id(exchange->take_body());
  if (!text.ok()) return exchange->fail(text.error());
  const Result<HubId> id = parse_hub_id(*text);
  if (!id.ok()) return exchange->fail(make_error(ErrorCode::invalid_argument, "'id': " + id.error().message, "id"));
  const Result<std::string> operation = begin_pull(admin, *id);
  if (!operation.ok()) return exchange->fail(operation.error());
  answer_operation(admin, exchange, *operation, query->wait,
                   [](Exchange& answer, const Operation& ended) { respond_json(answer, operation_json(ended)); });
}

}  // namespace inferneo
