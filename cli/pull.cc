// inferneo pull ORG/NAME[@REVISION]: downloads a model into the hub's cache.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "app/hub_access.h"
#include "base/config/suggest.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "formats/hub_client.h"

namespace inferneo {
namespace {

constexpr std::array kPullOptions = {
    CommandOption{"--files", "GLOB", "Only files that match, such as '*.json'; may be repeated", true},
};

Result<HubId> wanted_model(const Invocation& invocation) {
  if (invocation.positionals.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "pull: no model is named; give its id on the hub: inferneo pull ORG/NAME[@REVISION]");
  }
  const std::string& name = invocation.positionals.front();
  Result<HubId> id = parse_hub_id(name);
  if (id.ok()) return id;
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("pull: '{}' is {}", name.substr(0, 200), id.error().message));
}

// A line on a terminal; elsewhere a line for each file, so that a log shows that something happens.
class PullReport {
 public:
  PullReport(Terminal& terminal, const HubId& id, bool quiet)
      : terminal_(terminal),
        line_(terminal, clock_, quiet),
        label_(id.repository.substr(id.repository.find('/') + 1)),
        lines_(!quiet && !terminal.err_is_tty()) {}

  void update(const HubProgress& progress) {
    if (progress.files_total == 0) return;  // an index, which says what else there is
    if (lines_ && progress.files_done > files_done_) {
      terminal_.note(fmt::format("{} ({} of {} files, {} of {})\n", progress.file, progress.files_done,
                                 progress.files_total, byte_text(progress.bytes_done),
                                 byte_text(progress.bytes_total)));
    }
    files_done_ = progress.files_done;
    const size_t shown = std::min(progress.files_done + 1, progress.files_total);
    const std::string stage = progress.waiting ? "waiting for another download of it"
                                               : fmt::format("file {} of {}", shown, progress.files_total);
    line_.update({label_, stage, progress.bytes_done, progress.bytes_total, progress.bytes_per_second});
  }
  void clear() { line_.clear(); }

 private:
  Terminal& terminal_;
  SteadyClock clock_;
  ProgressLine line_;
  const std::string label_;
  const bool lines_;
  size_t files_done_ = 0;
};

// Adds the nearest name that the hub knows, when there is one.
Error with_suggestion(Error error, const HubAccess& access, const HubId& id, const std::stop_token& stop) {
  HubTuning tuning;
  tuning.timeouts.low_speed_seconds = 5;
  const auto found = search_hub(access, id.repository.substr(id.repository.find('/') + 1), stop, tuning);
  if (!found.ok()) return error;
  const std::vector<std::string_view> known(found->begin(), found->end());
  if (std::find(known.begin(), known.end(), id.repository) == known.end()) {
    error.message += did_you_mean(id.repository, known);
  }
  return error;
}

std::string closing_text(const HubId& id, const HubSnapshot& snapshot, const LoadedConfig& loaded,
                         const Invocation& invocation) {
  const std::string name = id.repository + (id.revision == "main" ? "" : "@" + id.revision);
  std::string text =
      fmt::format("{} ({} files, {}, {} of them downloaded now) is in\n  {}\n", name, snapshot.files.size(),
                  byte_text(snapshot.bytes), byte_text(snapshot.bytes_downloaded), snapshot.path);
  if (invocation.has("--files")) return text;
  const auto origin = loaded.origins.find("hub_cache");
  const bool by_flag = origin != loaded.origins.end() && origin->second.source == ConfigSource::flag;
  text += fmt::format("run it with: inferneo run {}{}\n", name,
                      by_flag ? fmt::format(" --hub-cache '{}'", loaded.config.hub_cache) : "");
  return text;
}

Result<int> pull(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const HubId id, wanted_model(invocation));
  ASSIGN_OR_RETURN(const LoadedConfig loaded, load_invocation_config(*find_command("pull"), invocation, context));
  const HubAccess access = hub_access(loaded.config);
  std::stop_source stop;
  std::atomic<int> signal = 0;
  PullReport report(context.terminal, id, loaded.config.quiet);
  const Signals::Scope until_done(context.signals, [&](int number, int count) {
    if (count > 1) ::_exit(128 + number);
    signal = number;
    stop.request_stop();
  });
  HubPull wanted{
      .id = id, .on_progress = [&](const HubProgress& progress) { report.update(progress); }, .stop = stop.get_token()};
  if (const auto globs = invocation.options.find("--files"); globs != invocation.options.end()) {
    wanted.globs = globs->second;
  }
  const Result<HubSnapshot> snapshot = pull_snapshot(access, wanted);
  report.clear();
  if (!snapshot.ok()) {
    if (snapshot.error().code == ErrorCode::cancelled && signal != 0) {
      context.terminal.note(fmt::format("inferneo: {}\n", snapshot.error().message));
      return 128 + signal;
    }
    const bool unknown = snapshot.error().code == ErrorCode::not_found && wanted.globs.empty();
    return unknown ? with_suggestion(snapshot.error(), access, id, stop.get_token()) : snapshot.error();
  }
  context.terminal.write(closing_text(id, *snapshot, loaded, invocation));
  return kExitDone;
}

}  // namespace

std::span<const CommandOption> pull_options() { return kPullOptions; }

int run_pull(const Invocation& invocation, CommandContext& context) {
  const auto code = pull(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
