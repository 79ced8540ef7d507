// What the admin routes share: the manager, the worker, the operations under way, who listens to the events.
//
// One for each server, owned by its routes, so that it ends after the last connection and before the manager. Callbacks
// that the manager may run later keep the worker and the table alive, never this: they post to the worker, which runs
// nothing any more once this has ended. Handlers run on io threads and do not block.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "formats/hub_client.h"
#include "manager/manager_core.h"
#include "server/admin/operation_table.h"
#include "server/admin/worker.h"
#include "server/exchange.h"
#include "tensor/ledger.h"

namespace inferneo {

// Downloads from the hub; pull_snapshot() with the server's access to it.
using PullFunction = std::function<Result<HubSnapshot>(const HubPull&)>;

struct Admin {
  Admin(ManagerCore& manager_in, const MemoryLedger& ledger_in, const Clock& clock_in, PullFunction pull_in);
  ~Admin();
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  // Runs it on the worker, or answers queue_full.
  void in_line(const std::shared_ptr<Exchange>& exchange, std::function<void()> work);

  ManagerCore& manager;
  const MemoryLedger& ledger;
  const Clock& clock;  // the manager's: for deadlines of requests
  const PullFunction pull;
  const std::shared_ptr<OperationTable> operations = std::make_shared<OperationTable>();
  const std::shared_ptr<AdminWorker> worker = std::make_shared<AdminWorker>();

  // A model on its way out of memory: unloaded, or put to sleep.
  struct Departure {
    std::string operation;
    std::string model;
    uint64_t unloads_before = 0;
    bool sleeps = false;
    uint64_t sleeps_before = 0;
  };
  std::vector<Departure> departures;  // under way; the worker's alone
  std::atomic<int> pending_departures{0};

  // Who listens to the events: the numbers of their subscriptions.
  static constexpr size_t kMaxListeners = 64;
  std::mutex listeners_mutex;
  std::vector<uint64_t> listeners;

  // Downloads and verifications under way, by their operation; each on a thread of its own, as it waits for the network
  // or the disk.
  static constexpr size_t kMaxThreads = 4;
  std::mutex threads_mutex;
  bool ending = false;
  std::map<std::string, std::jthread> threads;

 private:
  uint64_t state_listener_ = 0;
};

// Answers when the operation has ended: with its error, or as `done` does; else, after `wait`, with 202 and the
// operation as it is then. A client that leaves ends the wait alone.
using AnswerOperation = std::function<void(Exchange&, const Operation&)>;
void answer_operation(Admin& admin, const std::shared_ptr<Exchange>& exchange, const std::string& operation,
                      Duration wait, AnswerOperation done);

// As it is now, for an answer.
Operation with_progress(const Admin& admin, Operation operation);

void respond_model(const Admin& admin, Exchange& exchange, const std::string& id, int status = 200);

// The handlers of admin_routes.cc.
using AdminHandler = void (*)(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_list(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_show(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_register(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_remove(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_pin(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_unpin(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_keep_alive(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_amend(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_load(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_unload(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_sleep(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_wake_up(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_active_version(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_policy(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_set_alias(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_remove_alias(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_operations(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_operation(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_pull(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_verify(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_plan(Admin& admin, const std::shared_ptr<Exchange>& exchange);
void handle_events(Admin& admin, const std::shared_ptr<Exchange>& exchange);

// On the worker: ends the unloads and sleeps whose model is out of memory.
void finish_departures(Admin& admin);

}  // namespace inferneo
