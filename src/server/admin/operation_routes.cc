// GET /admin/operations and /admin/operations/{id}; downloads and verifications, which run on threads of their own.
#include <fmt/format.h>

#include <exception>
#include <functional>
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
  std::erase_if(admin.threads, [&](const auto& thread) {
    const std::optional<Operation> operation = admin.operations->find(thread.first);
    return !operation || operation->state != Operation::State::running;
  });
}

// Begins an operation on a thread of its own, unless the same is under way.
Result<std::string> begin_thread(Admin& admin, Operation::Kind kind, const std::string& model,
                                 std::function<void(const std::string& operation, std::stop_token stop)> work) {
  const std::lock_guard lock(admin.threads_mutex);
  if (const auto same = admin.operations->find_running(kind, model)) return same->id;
  reap(admin);
  if (admin.ending) return make_error(ErrorCode::unavailable, "The server is shutting down.");
  if (admin.threads.size() >= Admin::kMaxThreads) {
    return make_error(ErrorCode::queue_full,
                      "Too many downloads and verifications are under way; try again when one has ended.");
  }
  ASSIGN_OR_RETURN(const std::string operation, admin.operations->begin(kind, model));
  admin.threads.emplace(operation, std::jthread([operation, work = std::move(work)](std::stop_token stop) {
                          work(operation, std::move(stop));
                        }));
  return operation;
}

Result<std::string> begin_pull(Admin& admin, const HubId& id) {
  const auto work = [pull = admin.pull, table = admin.operations, id](const std::string& operation,
                                                                      std::stop_token stop) {
    HubPull wanted;
    wanted.id = id;
    wanted.stop = std::move(stop);
    wanted.on_progress = [&](const HubProgress& progress) { table->report(operation, stage_of(progress)); };
    Result<HubSnapshot> snapshot = download(pull, wanted);
    if (!snapshot.ok()) return table->finish(operation, std::move(snapshot).error());
    table->finish(operation, snapshot_json(*snapshot));
  };
  return begin_thread(admin, Operation::Kind::pull, id.repository + "@" + id.revision, work);
}

Result<std::string> begin_verify(Admin& admin, const std::string& id) {
  const auto work = [&admin, table = admin.operations, id](const std::string& operation, const std::stop_token&) {
    const auto files = admin.manager.verify(id);
    if (!files.ok()) return table->finish(operation, files.error());
    table->finish(operation, files_json(*files));
  };
  return begin_thread(admin, Operation::Kind::verify, id, work);
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

void handle_verify(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const Result<AdminQuery> query = read_query(exchange->request().head, {"wait"});
  if (!query.ok()) return exchange->fail(query.error());
  if (const Status empty = read_nothing(exchange->take_body()); !empty.ok()) return exchange->fail(empty.error());
  const Result<ModelStatus> model = admin.manager.status(exchange->request().path_param);
  if (!model.ok()) return exchange->fail(model.error());
  const Result<std::string> operation = begin_verify(admin, model->id);
  if (!operation.ok()) return exchange->fail(operation.error());
  answer_operation(admin, exchange, *operation, query->wait,
                   [](Exchange& answer, const Operation& ended) { respond_json(answer, operation_json(ended)); });
}

}  // namespace inferneo
