// The parts of the operators' API by themselves: patterns of routes, durations, the table of operations, the worker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>

#include "server/admin/operation_table.h"
#include "server/admin/worker.h"
#include "server/keep_alive.h"
#include "server/route_table.h"

namespace inferneo {
namespace {

using std::chrono::milliseconds;

RouteTable table_of(const std::vector<std::pair<Method, const char*>>& rows) {
  std::vector<Route> routes;
  for (const auto& [method, path] : rows) routes.emplace_back(method, path, AuthPolicy::open, Handler{});
  return RouteTable(std::move(routes));
}

TEST(RouteTable, TheMostSpecificPatternHasThePath) {
  const RouteTable table = table_of({{Method::get, "/m"},
                                     {Method::get, "/m/{id}"},
                                     {Method::del, "/m/{id}"},
                                     {Method::post, "/m/{id}/load"},
                                     {Method::get, "/m/all"}});
  const auto match = [&](Method method, std::string_view path) {
    const RouteMatch found = table.match(method, path);
    return found.route != nullptr ? found.route->path + " " + std::string(found.param)
                                  : "(" + found.allowed_methods + ")";
  };
  EXPECT_EQ(match(Method::get, "/m"), "/m ");
  EXPECT_EQ(match(Method::get, "/m/a"), "/m/{id} a");
  EXPECT_EQ(match(Method::head, "/m/a/b"), "/m/{id} a/b");
  EXPECT_EQ(match(Method::get, "/m/all"), "/m/all ");
  EXPECT_EQ(match(Method::del, "/m/all"), "(GET, HEAD)");
  EXPECT_EQ(match(Method::post, "/m/a/load"), "/m/{id}/load a");
  EXPECT_EQ(match(Method::post, "/m/a/load/load"), "/m/{id}/load a/load");
  EXPECT_EQ(match(Method::get, "/m/a/load"), "(POST)");
  EXPECT_EQ(match(Method::post, "/m/a"), "(GET, HEAD, DELETE)");
  EXPECT_EQ(match(Method::get, "/m/load"), "/m/{id} load");
  EXPECT_EQ(match(Method::post, "/m//load"), "(GET, HEAD, DELETE)") << "a parameter is not empty";
  EXPECT_EQ(match(Method::get, "/m/"), "()");
  EXPECT_EQ(match(Method::get, "/x"), "()");
}

TEST(KeepAlive, IsReadAsSecondsOrAsADuration) {
  const auto read = [](const char* json) {
    const auto seconds = read_keep_alive(Json::parse(json), "keep_alive");
    if (seconds.ok()) return std::to_string(*seconds);
    EXPECT_EQ(seconds.error().param, "keep_alive");
    return std::string("refused");
  };
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"0", "0"},         {"300", "300"},         {"1.5", "2"},           {"-1", "-1"},           {"-7", "-1"},
      {R"("5m")", "300"}, {R"("1h30m")", "5400"}, {R"("1.5h")", "5400"},  {R"("300ms")", "1"},    {R"("0")", "0"},
      {R"("90")", "90"},  {R"("-1")", "-1"},      {R"("-1m")", "-1"},     {R"("forever")", "-1"}, {R"("+2s")", "2"},
      {R"("0s")", "0"},   {R"("2\u00b5s")", "1"}, {R"("1h1ns")", "3601"},
  };
  for (const auto& [json, seconds] : cases) EXPECT_EQ(read(json), seconds) << json;
  for (const char* json : {R"("")", R"("5x")", R"("m")", R"("5m3")", R"("--1")", R"("1e3s")", R"("inf")", R"("nan")",
                           R"(" 5m")", R"("5m ")", R"("-")", "true", "[]", "{}", "1e300", R"("99999999h")"}) {
    EXPECT_EQ(read(json), "refused") << json;
  }
  EXPECT_EQ(read((R"(")" + std::string(100, '1') + R"(s")").c_str()), "refused");
}

TEST(OperationTable, FinishedOnesAreDroppedInTheOrderOfTheirEnd) {
  OperationTable table;
  const std::string old = *table.begin(Operation::Kind::pull, "old");
  for (size_t i = 0; i < OperationTable::kKept; ++i) {
    table.finish(*table.begin(Operation::Kind::load, std::to_string(i)), std::string());
  }
  EXPECT_EQ(table.list().size(), OperationTable::kKept + 1);
  EXPECT_EQ(table.find_running(Operation::Kind::pull, "old")->id, old);
  table.finish(old, make_error(ErrorCode::io_error, "gone"));
  EXPECT_EQ(table.list().size(), OperationTable::kKept);
  ASSERT_TRUE(table.find(old)) << "it ended last";
  EXPECT_EQ(table.find(old)->error->message, "gone");
  EXPECT_FALSE(table.find_running(Operation::Kind::pull, "old"));
  EXPECT_FALSE(table.find("op-2"));
  EXPECT_FALSE(table.find("op-01"));
  EXPECT_FALSE(table.find("op-99999999999999999999999"));
  std::vector<std::string> running;
  for (size_t i = 0; i < OperationTable::kMaxRunning; ++i) running.push_back(*table.begin(Operation::Kind::load, "x"));
  EXPECT_EQ(table.begin(Operation::Kind::load, "x").error().code, ErrorCode::queue_full);
  table.finish(running.front(), std::string());
  EXPECT_TRUE(table.begin(Operation::Kind::load, "x").ok());
}

TEST(OperationTable, WaitersAreToldOnceOrForgotten) {
  OperationTable table;
  const std::string id = *table.begin(Operation::Kind::load, "a");
  int told = 0;
  const auto tell = [&](const Operation& operation) { told += operation.result == "7" ? 1 : 100; };
  const uint64_t stays = table.when_ended(id, tell);
  const uint64_t leaves = table.when_ended(id, tell);
  EXPECT_TRUE(table.has_waiter(id, leaves));
  EXPECT_TRUE(table.forget(id, leaves));
  EXPECT_FALSE(table.forget(id, leaves));
  table.finish(id, std::string("7"));
  table.finish(id, std::string("8"));
  EXPECT_EQ(told, 1);
  EXPECT_FALSE(table.forget(id, stays));
  EXPECT_EQ(table.when_ended(id, tell), 0U);
  EXPECT_EQ(told, 2) << "at once";
  EXPECT_EQ(table.when_ended("op-9", tell), 0U);
}

TEST(AdminWorker, RunsTasksInOrderAndTimersWhenDue) {
  AdminWorker worker;
  std::string order;
  std::promise<void> done;
  const TimePoint now = std::chrono::steady_clock::now();
  std::promise<void> begin;
  worker.post([&] { begin.get_future().wait(); });
  worker.at(now, [&] { order += "c"; });
  worker.at(now + milliseconds(30), [&] { done.set_value(); });
  const uint64_t cancelled = worker.at(now + milliseconds(10), [&] { order += "x"; });
  worker.post([&] { order += "a"; });
  worker.post([&] { order += "b"; });
  worker.cancel(cancelled);
  worker.cancel(cancelled);
  worker.cancel(0);
  begin.set_value();
  done.get_future().wait();
  EXPECT_EQ(order, "abc");
}

TEST(AdminWorker, TakesSoMuchAndNothingAfterItsEnd) {
  AdminWorker worker;
  std::promise<void> begin;
  std::promise<void> held;
  worker.post([&] {
    held.set_value();
    begin.get_future().wait();
  });
  held.get_future().wait();
  int run = 0;
  size_t taken = 0;
  while (worker.try_post([&] { ++run; })) ++taken;
  EXPECT_EQ(taken, AdminWorker::kMaxQueue);
  worker.post([&] { ++run; });  // of what was accepted
  std::thread ender([&] { worker.stop(); });
  std::this_thread::sleep_for(milliseconds(5));
  begin.set_value();
  ender.join();
  EXPECT_FALSE(worker.try_post([] {}));
  worker.post([&] { run += 1000; });
  worker.at(std::chrono::steady_clock::now(), [&] { run += 1000; });
  EXPECT_LT(run, 1000);
}

}  // namespace
}  // namespace inferneo
