#include "models/onnx/graph_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>

#include "base/file_descriptor.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "models/onnx/graph_loader.h"
#include "models/onnx/onnx_loader.h"
#include "tensor/ledger.h"

namespace inferneo::onnx {
namespace {

constexpr const char* kProgram = "inferneo";
constexpr const char* kCommand = "onnx-check";
constexpr const char* kFine = "ok\n";
constexpr const char* kRefused = "refused\n";  // before it was tried, with an error that the parent will meet as well
constexpr size_t kMaxAnswer = 4096;
constexpr uint64_t kChildAddressSpace = uint64_t{4} << 30;  // beside several times the files
constexpr uint64_t kBytesPerFileByte = 6;
constexpr uint64_t kMostSecondsForSize = 3600;  // files with holes can be of any size

// Keys of files that have passed.
class Passed {
 public:
  bool contains(const std::string& key) {
    const std::lock_guard lock(mutex_);
    return keys_.contains(key);
  }
  void add(const std::string& key) {
    const std::lock_guard lock(mutex_);
    if (keys_.size() >= kMaxKeys) keys_.clear();
    keys_.insert(key);
  }

 private:
  static constexpr size_t kMaxKeys = 1024;
  std::mutex mutex_;
  std::set<std::string> keys_;
};
Passed& passed() {
  static Passed instance;
  return instance;
}

struct Child {
  pid_t pid = -1;
  FileDescriptor output;
};

Result<Child> spawn(const std::vector<std::string>& command) {
  std::array<int, 2> ends = {-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return make_error(ErrorCode::io_error, fmt::format("no pipe for a child process: {}", std::strerror(errno)));
  }
  Child child{-1, FileDescriptor(ends[0])};
  const FileDescriptor input(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  // Libraries open files and sockets that a child would keep: clients would wait on them, and a graph could use them.
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  // The signals of a server's threads are blocked; the child must be one that can be ended.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::array<char*, 1> environment = {nullptr};  // nothing of ours is the child's to know
  const int error =
      ::posix_spawn(&child.pid, arguments[0], &actions, &attributes, arguments.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return Result<Child>(std::move(child));
  return make_error(ErrorCode::io_error, fmt::format("{} could not be started: {}", command[0], std::strerror(error)));
}

// What the child writes until it ends or `deadline`; false: it was not done.
bool read_answer(int fd, TimePoint deadline, std::string& answer) {
  const SteadyClock clock;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock.now()).count();
    if (left <= 0) return false;
    struct pollfd waiting = {fd, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, 1000)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    std::array<char, 1024> part;
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    if (answer.size() < kMaxAnswer) answer.append(part.data(), static_cast<size_t>(got));
  }
}

// Whether a child whose output has ended, so that it is about to end as well, does so until `deadline`.
bool wait_until(TimePoint deadline, pid_t pid, int& status) {
  const SteadyClock clock;
  for (;;) {
    const pid_t ended = ::waitpid(pid, &status, WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return true;
    if (clock.now() >= deadline) return false;
    ::poll(nullptr, 0, 5);
  }
}

Status limit(int resource, uint64_t amount) {
  const struct rlimit wanted = {amount, amount};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &wanted) == 0) return ok_status();
  return make_error(ErrorCode::io_error, fmt::format("a limit could not be set: {}", std::strerror(errno)));
}

// A sanitizer reserves more addresses than any limit would allow.
constexpr bool kCanLimitAddresses =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    false;
#else
    true;
#endif

std::optional<uint64_t> number_of(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The answer.
Result<std::string> load_here(const std::vector<std::string>& arguments, int32_t max_model_len) {
  // The parent has checked where the files lie.
  ASSIGN_OR_RETURN(const ModelDirectory directory, ModelDirectory::open(arguments[3], arguments[4], {"/"}));
  MemoryLedger ledger(SIZE_MAX);
  ThreadPool pool(1);
  OnnxLoadOptions options;
  options.directory = &directory;
  options.file = arguments[5];
  options.model_name = arguments[3];
  options.ledger = &ledger;
  options.pool = &pool;
  options.library = arguments[2];
  options.check.when = GraphCheckOptions::When::never;
  options.max_model_len = max_model_len;
  options.task = arguments[7];
  const auto load = [&]() -> Status {
    ASSIGN_OR_RETURN(const ModelKind kind, onnx_kind(options));
    if (kind == ModelKind::generator) {
      const Result<std::unique_ptr<ModelRunner>> runner = load_onnx_model(options);
      return runner.ok() ? ok_status() : Status(runner.error());
    }
    const Result<OnnxGraphModel> model = load_onnx_graph(options);
    return model.ok() ? ok_status() : Status(model.error());
  };
  const Status loaded = load();
  if (loaded.ok()) return std::string(kFine);
  const ErrorCode code = loaded.error().code;
  if (code == ErrorCode::unsupported || code == ErrorCode::invalid_argument) return std::string(kRefused);
  return loaded.error();
}

Result<std::string> check_here(const std::vector<std::string>& arguments) {
  const bool complete = arguments.size() == 8;
  const std::optional<uint64_t> bytes = complete ? number_of(arguments[0]) : std::nullopt;
  const std::optional<uint64_t> seconds = complete ? number_of(arguments[1]) : std::nullopt;
  const std::optional<uint64_t> length = complete ? number_of(arguments[6]) : std::nullopt;
  if (!bytes || !seconds || !length) {
    return make_error(ErrorCode::invalid_argument,
                      "onnx-check BYTES SECONDS LIBRARY MODEL FOLDER GRAPH LENGTH TASK: not for people");
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // the server's end is the child's
  RETURN_IF_ERROR(limit(RLIMIT_CORE, 0));
  RETURN_IF_ERROR(limit(RLIMIT_CPU, *seconds));
  if (kCanLimitAddresses) RETURN_IF_ERROR(limit(RLIMIT_AS, *bytes));
  ::signal(SIGXFSZ, SIG_IGN);  // log lines that go to a file fail, and that is all
  RETURN_IF_ERROR(limit(RLIMIT_FSIZE, 0));
  // A library that its parent has and the child has not, for want of an environment, checks nothing: an error.
  if (const auto library = OrtLibrary::open(arguments[2]); !library.ok()) return library.error();
  return load_here(arguments, static_cast<int32_t>(std::min<uint64_t>(*length, INT32_MAX)));
}

// And the way out.
std::string end_of(int status, bool in_time) {
  constexpr const char* kTrusted = "; where the graph is trusted and needs more, onnx_check: never loads it as it is";
  constexpr const char* kBroken = "; get its files from their source again, or export it anew";
  if (!in_time) return fmt::format("was not done in time{}", kTrusted);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (signal == SIGXCPU || signal == SIGKILL) return fmt::format("took more time or memory than it may{}", kTrusted);
    return fmt::format("ended with signal {}{}", signal, kBroken);
  }
  return fmt::format("ended with status {}{}", WIFEXITED(status) ? WEXITSTATUS(status) : -1, kBroken);
}

}  // namespace

std::vector<std::string> default_check_command() {
  std::array<char, PATH_MAX> path;
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) return {};
  const std::string self(path.data(), static_cast<size_t>(length));
  const size_t slash = self.find_last_of('/');
  const std::string beside = self.substr(0, slash + 1) + kProgram;
  // By this link the program is found even when a newer one lies at its path by now.
  if (self == beside) return {"/proc/self/exe", kCommand};
  if (::access(beside.c_str(), X_OK) == 0) return {beside, kCommand};
  return {};
}

Status check_graph_in_child(const GraphCheckOptions& options, const GraphCheckRequest& request) {
  if (passed().contains(request.key)) return ok_status();
  const std::string label = fmt::format("model '{}': {}", request.model, request.file);
  std::vector<std::string> command = options.command.empty() ? default_check_command() : options.command;
  if (command.empty()) {
    log_warning("{}: opened without a look by a child process, since no program '{}' is beside this one", label,
                kProgram);
    return ok_status();
  }
  const uint64_t for_size = std::min(request.bytes / kCheckedBytesPerSecond, kMostSecondsForSize);
  const Duration patience = options.patience + std::chrono::seconds(static_cast<int64_t>(for_size));
  const auto seconds = std::max<int64_t>(1, static_cast<int64_t>(to_seconds(patience)));
  command.push_back(std::to_string(kChildAddressSpace + kBytesPerFileByte * request.bytes));
  command.push_back(std::to_string(seconds));
  const std::string length = std::to_string(request.max_model_len);
  command.insert(command.end(), {request.library, request.model, request.folder, request.file, length, request.task});
  Result<Child> spawned = spawn(command);
  if (!spawned.ok()) return make_error(spawned.error().code, fmt::format("{}: {}", label, spawned.error().message));
  const Child child = std::move(spawned).value();
  const TimePoint deadline = SteadyClock().now() + patience;
  std::string answer;
  int status = 0;
  const bool done = read_answer(child.output.get(), deadline, answer) && wait_until(deadline, child.pid, status);
  if (!done) {
    ::kill(child.pid, SIGKILL);
    while (::waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
  }
  if (done && (answer == kFine || answer == kRefused) && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    if (answer == kFine) passed().add(request.key);
    return ok_status();
  }
  if (done && !answer.empty() && WIFEXITED(status)) {
    while (!answer.empty() && answer.back() == '\n') answer.pop_back();
    // The child names the model itself where it got as far as that.
    return make_error(ErrorCode::malformed,
                      answer.starts_with("model '") ? answer : fmt::format("{}: {}", label, answer));
  }
  return make_error(ErrorCode::refused, fmt::format("{}: not loaded, since a child process that did so first {}", label,
                                                    end_of(status, done)));
}

int run_graph_check(const std::vector<std::string>& arguments) {
  const Result<std::string> checked = check_here(arguments);
  const std::string answer = checked.ok() ? *checked : checked.error().message + "\n";
  size_t written = 0;
  while (written < answer.size()) {
    const ssize_t put = ::write(STDOUT_FILENO, answer.data() + written, answer.size() - written);
    if (put <= 0) break;
    written += static_cast<size_t>(put);
  }
  return checked.ok() ? 0 : 1;
}

}  // namespace inferneo::onnx
