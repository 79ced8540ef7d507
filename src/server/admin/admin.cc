#include "server/admin/admin.h"

#include <utility>

#include "server/admin/model_json.h"

namespace inferneo {

Admin::Admin(ManagerCore& manager_in, const MemoryLedger& ledger_in, const Clock& clock_in, PullFunction pull_in)
    : manager(manager_in), ledger(ledger_in), clock(clock_in), pull(std::move(pull_in)) {
  EventLog& log = manager.events();
  // The publisher shall not wait: the look at the model is the worker's.
  state_listener_ = log.subscribe(log.last_sequence(), [this](const ModelEvent& event) {
    const bool may_end_one = event.kind == ModelEvent::Kind::state || event.kind == ModelEvent::Kind::removed;
    if (may_end_one && pending_departures > 0) worker->post([this] { finish_departures(*this); });
  });
}

Admin::~Admin() {
  manager.events().unsubscribe(state_listener_);
  for (const uint64_t listener : listeners) manager.events().unsubscribe(listener);
  worker->stop();
  std::map<std::string, std::jthread> under_way;
  {
    const std::lock_guard lock(threads_mutex);
    ending = true;
    under_way.swap(threads);
  }
  for (auto& [id, thread] : under_way) thread.request_stop();
  under_way.clear();  // joins them
}

void Admin::in_line(const std::shared_ptr<Exchange>& exchange, std::function<void()> work) {
  if (worker->try_post(std::move(work))) return;
  exchange->fail(make_error(ErrorCode::queue_full, "Too many changes wait to be made; try again later."));
}

void respond_model(const Admin& admin, Exchange& exchange, const std::string& id, int status) {
  const Result<ModelStatus> model = admin.manager.status(id);
  if (!model.ok()) return exchange.fail(model.error());
  respond_json(exchange, model_json(*model), status);
}

Operation with_progress(const Admin& admin, Operation operation) {
  if (operation.state != Operation::State::running || operation.loads.empty()) return operation;
  const Result<ModelStatus> status = admin.manager.status(operation.loads);
  if (status.ok()) operation.progress = status->progress;
  return operation;
}

void answer_operation(Admin& admin, const std::shared_ptr<Exchange>& exchange, const std::string& operation,
                      Duration wait, AnswerOperation done) {
  const auto timer = std::make_shared<std::atomic<uint64_t>>(0);
  const auto table = admin.operations;
  const auto worker = admin.worker;
  const uint64_t waiter =
      table->when_ended(operation, [exchange, worker, timer, done = std::move(done)](const Operation& ended) {
        worker->cancel(timer->load());
        if (ended.error) {
          exchange->fail(*ended.error);
        } else {
          done(*exchange, ended);
        }
      });
  if (waiter == 0) {  // answered, unless the table has dropped it since; only the first answer counts
    return exchange->fail(make_error(ErrorCode::not_found, "The operation has ended long ago."));
  }
  // The timer may lie for long after the answer is out: it keeps nothing alive.
  timer->store(worker->at(std::chrono::steady_clock::now() + wait,
                          [&admin, operation, waiter, weak = std::weak_ptr<Exchange>(exchange)] {
                            std::optional<Operation> row = admin.operations->find(operation);
                            if (!admin.operations->forget(operation, waiter) || !row) return;
                            const std::shared_ptr<Exchange> waiting = weak.lock();
                            if (waiting) respond_json(*waiting, operation_json(with_progress(admin, *row)), 202);
                          }));
  if (!table->has_waiter(operation, waiter)) worker->cancel(timer->load());
  const auto give_up = [table, worker, operation, waiter, timer] {
    worker->cancel(timer->load());
    table->forget(operation, waiter);
  };
  exchange->on_abandoned(give_up);
  exchange->on_drain([give_up, weak = std::weak_ptr<Exchange>(exchange)] {
    give_up();
    const std::shared_ptr<Exchange> waiting = weak.lock();
    if (waiting) waiting->fail(make_error(ErrorCode::unavailable, "The server is shutting down."));
  });
}

}  // namespace inferneo
