#include "cli/model_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "cli/progress.h"

namespace inferneo {
namespace {

constexpr Duration kFirstPause = std::chrono::milliseconds(50);
constexpr Duration kLastPause = std::chrono::milliseconds(250);
constexpr int kMaxLost = 3;  // questions in a row that a busy server leaves without an answer

Error failure_of(const nlohmann::json& operation) {
  const auto error = operation.find("error");
  const bool told = error != operation.end() && error->is_object();
  const std::string message = told ? text_field(*error, "message") : std::string();
  ErrorCode code = error_code_named(told ? text_field(*error, "code") : "").value_or(ErrorCode::internal);
  // A model's settings may be at fault, the command's words are not.
  if (code == ErrorCode::invalid_argument || code == ErrorCode::unsupported) code = ErrorCode::malformed;
  return make_error(code, message.empty() ? "the server failed at it and gives no reason" : message);
}

bool is_operation_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

void show(ProgressLine& line, const std::string& label, const nlohmann::json& operation) {
  const auto found = operation.find("progress");
  if (found == operation.end() || !found->is_object()) return line.update({label, "waiting"});
  const auto bytes = [&](const char* name) -> uint64_t {
    const auto number = found->find(name);
    return number != found->end() && number->is_number_unsigned() ? number->get<uint64_t>() : 0;
  };
  line.update({label, text_field(*found, "stage"), bytes("bytes_done"), bytes("bytes_total")});
}

// Sleeps for a while; false once `stop` asks for the end.
bool pause(Duration length, const std::stop_token& stop) {
  const auto end = std::chrono::steady_clock::now() + length;
  while (!stop.stop_requested() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return !stop.stop_requested();
}

// Until the operation's state is another than running.
Result<AdminAnswer> follow(const AdminClient& server, AdminAnswer answer, ProgressLine& line, const std::string& label,
                           const std::stop_token& stop) {
  const std::string id = text_field(answer.json, "id");
  if (!is_operation_id(id)) {
    return make_error(ErrorCode::malformed,
                      "the server began an operation and names none; 'inferneo models' shows "
                      "what comes of it");
  }
  Duration length = kFirstPause;
  for (int lost = 0;;) {
    const std::string state = text_field(answer.json, "state");
    if (state == "failed") return failure_of(answer.json);
    if (state == "done") return answer;
    if (state != "running") {
      return make_error(ErrorCode::malformed, fmt::format("the server says that the operation is '{}'", state));
    }
    show(line, label, answer.json);
    if (!pause(length, stop)) return make_error(ErrorCode::cancelled, "interrupted");
    length = std::min(2 * length, kLastPause);
    Result<AdminAnswer> next = server.call("GET", "/admin/operations/" + id, {}, stop);
    if (next.ok()) {
      answer = *std::move(next);
      lost = 0;
    } else if (next.error().code != ErrorCode::unavailable || ++lost >= kMaxLost) {
      return next;
    }
  }
}

}  // namespace

Result<const AdminClient*> ModelCommand::server() const {
  if (const AdminClient* const client = admin->server()) return client;
  return make_error(ErrorCode::unavailable,
                    fmt::format("{}: this takes a running server, and this is {}. Start one with 'inferneo serve', or "
                                "name one with --url",
                                command.name, admin->where()));
}

int ModelCommand::tell(const AdminAnswer& answer, std::string_view sentence) const {
  if (json()) {
    context.terminal.write(context.terminal.shown(answer.text) + (answer.text.ends_with('\n') ? "" : "\n"));
  } else {
    context.terminal.write(without_control_characters(sentence) + "\n");
  }
  return kExitDone;
}

Result<ModelCommand> begin_model_command(std::string_view name, size_t required, const Invocation& invocation,
                                         CommandContext& context) {
  const Command& command = *find_command(name);
  if (invocation.positionals.size() < required) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("{}: {}; usage: inferneo {}", name,
                                  invocation.positionals.empty() ? "what to do it to is missing" : "a word is missing",
                                  command.usage));
  }
  ASSIGN_OR_RETURN(LoadedConfig loaded, load_invocation_config(command, invocation, context));
  ASSIGN_OR_RETURN(auto admin, find_model_admin(invocation, loaded, context));
  return ModelCommand{command, invocation, context, std::move(loaded), std::move(admin)};
}

Result<AdminAnswer> finish_operation(const ModelCommand& command, AdminAnswer answer, OperationWait& wait) {
  const AdminClient* const server = command.admin->server();
  if (answer.status != 202 || server == nullptr || command.invocation.has(kNoWaitOption.flag)) return answer;
  static const SteadyClock clock;
  std::stop_source stop;
  std::atomic<int> signal = 0;
  ProgressLine line(command.context.terminal, clock, command.loaded.config.quiet);
  Result<AdminAnswer> ended = [&] {
    const Signals::Scope until_done(command.context.signals, [&](int number, int count) {
      if (count > 1) ::_exit(128 + number);
      signal = number;
      stop.request_stop();
    });
    return follow(*server, std::move(answer), line, wait.label, stop.get_token());
  }();
  line.clear();
  if (!ended.ok() && ended.error().code == ErrorCode::cancelled && signal != 0) {
    wait.signal = signal;
    return make_error(
        ErrorCode::cancelled,
        fmt::format("the server goes on {} {}; 'inferneo models' shows what comes of it", wait.verb, wait.label));
  }
  return ended;
}

std::string text_field(const nlohmann::json& object, const char* name) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (found == object.end() || !found->is_string()) return {};
  return without_control_characters(found->get<std::string>().substr(0, 1000));
}

bool is_running_operation(const AdminAnswer& answer) {
  return answer.status == 202 && text_field(answer.json, "state") == "running";
}

}  // namespace inferneo
