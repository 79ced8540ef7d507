// GET /admin/events: what happens to the models, as server-sent events.
#include <algorithm>
#include <charconv>

#include "server/admin/admin.h"
#include "server/admin/model_json.h"
#include "server/admin/model_requests.h"

namespace inferneo {
namespace {

// Where to begin: after what the client has seen last, else with what comes now.
uint64_t begin_of(const HttpHead& head, const AdminQuery& query, const EventLog& log) {
  std::optional<uint64_t> after = query.after;
  if (const std::string* const seen = head.header("last-event-id"); seen != nullptr && !after) {
    uint64_t number = 0;
    const char* const end = seen->data() + seen->size();
    const auto [stop, ec] = std::from_chars(seen->data(), end, number);
    if (ec == std::errc() && stop == end) after = number;
  }
  const uint64_t last = log.last_sequence();
  if (!after) return last;
  return *after > last ? 0 : *after;  // of a server that ran before this one
}

void stop_listening(Admin& admin, uint64_t listener) {
  {
    const std::lock_guard lock(admin.listeners_mutex);
    std::erase(admin.listeners, listener);
  }
  admin.manager.events().unsubscribe(listener);
}

}  // namespace

void handle_events(Admin& admin, const std::shared_ptr<Exchange>& exchange) {
  const HttpHead& head = exchange->request().head;
  const Result<AdminQuery> query = read_query(head, {"after"});
  if (!query.ok()) return exchange->fail(query.error());
  if (head.method == Method::head) {
    HttpResponse response;
    response.content_type = "text/event-stream; charset=utf-8";
    return exchange->respond(std::move(response));
  }
  EventLog& log = admin.manager.events();
  uint64_t listener = 0;
  {
    const std::lock_guard lock(admin.listeners_mutex);
    if (admin.listeners.size() >= Admin::kMaxListeners) {
      return exchange->fail(make_error(ErrorCode::queue_full, "Too many listen to the events; end one of them."));
    }
    exchange->write_event(": events\n\n");  // so that the client knows that it listens
    // Runs on the thread that publishes: a frame is queued, and who does not read is dropped by the exchange.
    listener = log.subscribe(begin_of(head, *query, log),
                             [exchange](const ModelEvent& event) { exchange->write_event(event_frame(event)); });
    admin.listeners.push_back(listener);
  }
  exchange->on_abandoned([&admin, listener] { stop_listening(admin, listener); });
  exchange->on_drain([&admin, listener, weak = std::weak_ptr<Exchange>(exchange)] {
    stop_listening(admin, listener);
    if (const std::shared_ptr<Exchange> stream = weak.lock()) stream->finish_stream();
  });
}

}  // namespace inferneo
