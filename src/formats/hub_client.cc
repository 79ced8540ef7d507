#include "formats/hub_client.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>

#include "formats/hub_blob.h"
#include "formats/hub_cache.h"
#include "formats/hub_files.h"
#include "formats/hub_requests.h"
#include "formats/hub_transfer.h"
#include "formats/json.h"
#include "formats/model_directory.h"

namespace inferneo {
namespace hub {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 42;
constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr JsonLimits kListLimits = {.max_bytes = size_t{32} << 20, .max_values = 2'000'000, .max_depth = 32};
constexpr Duration kReportEvery = std::chrono::milliseconds(100);
constexpr double kRateSeconds = 5.0;

bool is_commit(std::string_view text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// The token as it goes into a header; from its file when there is none.
Result<std::string> token_of(const HubAccess& access) {
  std::string token = access.token;
  if (token.empty() && !access.token_file.empty()) {
    Result<std::string> text = read_named_file(access.token_file, "the hub's token", 4096);
    if (text.ok()) {
      token = *std::move(text);
    } else if (text.error().code != ErrorCode::not_found) {
      return text.error();
    }
  }
  const auto is_blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!token.empty() && is_blank(token.back())) token.pop_back();
  token.erase(token.begin(), std::find_if_not(token.begin(), token.end(), is_blank));
  if (!std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7f; })) {
    return make_error(ErrorCode::invalid_argument,
                      "hub_token: expected visible ASCII characters without spaces, got ***", "hub_token");
  }
  return token;
}

Result<Session> open_session(const HubAccess& access, const HubId& id, const HubTuning& tuning, std::stop_token stop) {
  Session session{.endpoint = access.endpoint,
                  .origin = {},
                  .token = {},
                  .model = id.repository + (id.revision == "main" ? "" : "@" + id.revision),
                  .id = id,
                  .tuning = tuning,
                  .stop = std::move(stop)};
  if (access.offline) {
    return session.error(ErrorCode::unavailable,
                         "hub_offline (HF_HUB_OFFLINE) is set, so nothing is downloaded; unset it, or give the path of "
                         "a model's directory");
  }
  while (session.endpoint.ends_with('/')) session.endpoint.pop_back();
  Result<std::string> origin = origin_of(session.endpoint);
  if (!origin.ok() || session.endpoint.find_first_of("?# ") != std::string::npos) {
    return make_error(ErrorCode::invalid_argument,
                      "hub_endpoint (HF_ENDPOINT): expected an address of the form https://host, without user name, "
                      "password or query",
                      "hub_endpoint");
  }
  session.origin = *std::move(origin);
  ASSIGN_OR_RETURN(session.token, token_of(access));
  return session;
}

// One file of the snapshot, and what the hub says about it.
struct RemoteFile {
  std::string name;
  BlobHash hash;
  uint64_t size = 0;
};

// The rate over the last seconds.
class RateMeter {
 public:
  double add(TimePoint now, uint64_t bytes) {
    samples_.push_back({now, bytes});
    while (samples_.size() > 2 && to_seconds(now - samples_.front().time) > kRateSeconds) samples_.pop_front();
    const double seconds = to_seconds(now - samples_.front().time);
    const uint64_t before = samples_.front().bytes;
    return seconds > 0.2 && bytes > before ? static_cast<double>(bytes - before) / seconds : 0.0;
  }

 private:
  struct Sample {
    TimePoint time;
    uint64_t bytes;
  };
  std::deque<Sample> samples_;
};

class SnapshotPull {
 public:
  SnapshotPull(Session session, const HubPull& pull, const std::string& cache)
      : session_(std::move(session)), pull_(pull), cache_(cache), folder_(cache, session_.id.repository) {}

  Result<HubSnapshot> run() {
    RETURN_IF_ERROR(list());
    RETURN_IF_ERROR(select());
    RETURN_IF_ERROR(label(folder_.prepare()));
    for (const RemoteFile& file : files_) progress_.bytes_total += file.size;
    progress_.files_total = files_.size();
    RETURN_IF_ERROR(check_space());
    for (const RemoteFile& file : files_) RETURN_IF_ERROR(download(file));
    return finish();
  }

 private:
  Status label(Status status) const {
    if (status.ok()) return status;
    const Error& error = status.error();
    if (error.code == ErrorCode::cancelled) return session_.cancelled();
    return error.message.starts_with("model '") ? error : session_.error(error.code, error.message);
  }

  // The commit and the names of all files.
  Status list() {
    SmallRequest request{.url = fmt::format("{}/api/models/{}/revision/{}", session_.endpoint, session_.id.repository,
                                            url_encode(session_.id.revision, false)),
                         .what = "its list of files",
                         .max_body = kListLimits.max_bytes};
    RETURN_IF_ERROR(perform(session_, {&request, 1}));
    if (request.response.status != 200) return status_error(session_, request.what, request.response);
    Result<nlohmann::json> parsed = parse_json(request.body, request.what, kListLimits);
    if (!parsed.ok()) return session_.error(ErrorCode::malformed, "the hub sends " + parsed.error().message);
    const auto malformed = [&] {
      return session_.error(ErrorCode::malformed, "the hub's list of its files is not such a list");
    };
    const nlohmann::json& root = *parsed;
    if (!root.is_object() || !root.contains("sha") || !root["sha"].is_string() || !root.contains("siblings") ||
        !root["siblings"].is_array()) {
      return malformed();
    }
    commit_ = root["sha"].get<std::string>();
    if (!is_commit(commit_)) return malformed();
    if (root["siblings"].size() > kMaxListedFiles) {
      return session_.error(ErrorCode::malformed, fmt::format("the hub lists {} files, the limit is {}",
                                                              root["siblings"].size(), kMaxListedFiles));
    }
    for (const nlohmann::json& entry : root["siblings"]) {
      if (!entry.is_object() || !entry.contains("rfilename") || !entry["rfilename"].is_string()) return malformed();
      listed_.push_back(entry["rfilename"].get<std::string>());
    }
    return ok_status();
  }

  // Decides what to fetch, and asks the hub for sizes and hashes. An index is fetched on the way.
  Status select() {
    Result<std::vector<std::string>> names =
        pull_.globs.empty() ? select_serving_files(listed_) : select_matching_files(listed_, pull_.globs);
    if (!names.ok()) return label(names.error());
    RETURN_IF_ERROR(describe(*names));
    const auto index = std::find_if(files_.begin(), files_.end(), [](const auto& f) { return f.name == kIndexFile; });
    if (index == files_.end() || !pull_.globs.empty()) return ok_status();
    if (index->size > kMaxIndexBytes) {
      return session_.error(ErrorCode::malformed, fmt::format("{} has {} bytes", kIndexFile, index->size));
    }
    RETURN_IF_ERROR(label(folder_.prepare()));
    RETURN_IF_ERROR(download(*index));
    progress_.files_done = 0;
    progress_.bytes_done = 0;
    ready_ = 0;
    std::vector<std::string> shards;
    Result<std::string> text = read_named_file(folder_.blob(index->hash.hex), std::string(kIndexFile), kMaxIndexBytes);
    if (!text.ok()) return session_.error(text.error().code, fmt::format("{} cannot be read back", kIndexFile));
    RETURN_IF_ERROR(label(add_shards(*text, listed_, shards)));
    return describe(shards);
  }

  Status describe(const std::vector<std::string>& names) {
    std::vector<SmallRequest> requests;
    for (const std::string& name : names) requests.push_back({.url = file_url(name), .what = name, .head = true});
    RETURN_IF_ERROR(perform(session_, requests));
    for (const SmallRequest& request : requests) {
      const HttpResponse& response = request.response;
      if (response.status >= 400 || response.status < 200) return status_error(session_, request.what, response);
      const auto malformed = [&](std::string_view what) {
        return session_.error(ErrorCode::malformed, fmt::format("{}: {}", request.what, what));
      };
      if (response.header("x-repo-commit") != commit_) {
        return malformed(
            "the hub does not say that it is of the commit asked for; is hub_endpoint (HF_ENDPOINT) a hub?");
      }
      const bool linked = !response.header("x-linked-etag").empty();
      Result<BlobHash> hash = BlobHash::of_etag(response.header(linked ? "x-linked-etag" : "etag"));
      if (!hash.ok()) return malformed(hash.error().message);
      std::string_view digits = response.header("x-linked-size");
      if (digits.empty() && response.status < 300) digits = response.header("content-length");
      RemoteFile file{request.what, *std::move(hash)};
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), file.size);
      if (error != std::errc() || digits.empty() || end != digits.data() + digits.size()) {
        return malformed("the hub does not say how large it is");
      }
      if (file.size > kMaxFileBytes)
        return malformed(fmt::format("{} bytes are more than are ever fetched", file.size));
      files_.push_back(std::move(file));
    }
    return ok_status();
  }

  std::string file_url(const std::string& name) const {
    return fmt::format("{}/resolve/{}/{}", session_.repository_url(), commit_, url_encode(name, true));
  }

  Status check_space() const {
    uint64_t needed = 0;
    for (const RemoteFile& file : files_) {
      if (is_file_of_size(folder_.blob(file.hash.hex), file.size)) continue;
      needed += file.size - std::min(file.size, file_size_or_zero(folder_.incomplete(file.hash.hex)));
    }
    const uint64_t free = free_bytes(cache_);
    if (needed == 0 || needed <= free) return ok_status();
    return session_.error(ErrorCode::disk_full,
                          fmt::format("{} are still to come and the disk of the hub cache has {} free; make room, or "
                                      "take a cache elsewhere with --hub-cache or HF_HUB_CACHE",
                                      byte_text(needed), byte_text(free)));
  }

  Status download(const RemoteFile& file) {
    const std::string blob = folder_.blob(file.hash.hex);
    const uint64_t before = progress_.bytes_done;
    progress_.file = file.name;
    const auto report = [&](uint64_t have) {
      progress_.bytes_done = before + have;
      tell(false);
    };
    if (!is_file_of_size(blob, file.size)) {
      progress_.waiting = true;
      Result<FileLock> lock = FileLock::acquire(folder_.lock(file.hash.hex), session_.stop, [&] { tell(false); });
      progress_.waiting = false;
      if (!lock.ok()) return label(lock.error());
      if (is_file_of_size(blob, file.size)) {
        ready_ += file.size;
      } else {
        RETURN_IF_ERROR(label(download_locked(file, blob, report)));
      }
    } else {
      ready_ += file.size;
    }
    progress_.bytes_done = before + file.size;
    ++progress_.files_done;
    tell(true);
    return ok_status();
  }

  Status download_locked(const RemoteFile& file, const std::string& blob, const std::function<void(uint64_t)>& report) {
    ASSIGN_OR_RETURN(BlobFile partial,
                     BlobFile::open(folder_.incomplete(file.hash.hex), file.name, file.hash, file.size, session_.stop));
    bool resumed = partial.size() > 0;
    ready_ += partial.size();
    for (;;) {
      const uint64_t had = partial.size();
      const Status status = fetch_into(session_, partial, file_url(file.name), file.name, file.size, report);
      downloaded_ += partial.size() - std::min(had, partial.size());
      RETURN_IF_ERROR(status);
      ASSIGN_OR_RETURN(const bool matches, partial.matches());
      if (matches) return partial.publish(blob);
      if (!resumed) break;
      resumed = false;  // the beginning may be of something else
      RETURN_IF_ERROR(partial.restart());
    }
    partial.discard();
    return session_.error(ErrorCode::malformed,
                          fmt::format("{}: what came does not have the hash that the hub gives, and was thrown away; "
                                      "pull again, and if that does not help the hub or the way to it is at fault",
                                      file.name));
  }

  // The weights first and the configuration last: a snapshot that can be opened is whole.
  Result<HubSnapshot> finish() {
    HubSnapshot snapshot{.commit = commit_, .path = folder_.snapshot(commit_), .files = {}};
    std::stable_partition(files_.begin(), files_.end(), [](const auto& file) { return file.name != "config.json"; });
    for (const RemoteFile& file : files_) {
      RETURN_IF_ERROR(label(folder_.link(commit_, file.name, file.hash.hex)));
      snapshot.files.push_back(file.name);
      snapshot.bytes += file.size;
    }
    RETURN_IF_ERROR(label(folder_.write_ref(session_.id.revision, commit_)));
    std::sort(snapshot.files.begin(), snapshot.files.end());
    snapshot.bytes_downloaded = downloaded_;
    return snapshot;
  }

  void tell(bool always) {
    const TimePoint now = clock_.now();
    if (!pull_.on_progress || (!always && now - told_ < kReportEvery)) return;
    told_ = now;
    progress_.bytes_per_second = rate_.add(now, progress_.bytes_done - std::min(ready_, progress_.bytes_done));
    pull_.on_progress(progress_);
  }

  const Session session_;
  const HubPull& pull_;
  const std::string cache_;
  const CacheFolder folder_;
  SteadyClock clock_;
  std::string commit_;
  std::vector<std::string> listed_;
  std::vector<RemoteFile> files_;
  HubProgress progress_;
  RateMeter rate_;
  TimePoint told_ = {};
  uint64_t ready_ = 0;  // bytes that did not have to come, which no rate counts
  uint64_t downloaded_ = 0;
};

}  // namespace
}  // namespace hub

Result<HubSnapshot> pull_snapshot(const HubAccess& access, const HubPull& pull, const HubTuning& tuning) {
  if (access.cache.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "there is no hub cache to download into; set hub_cache, HF_HUB_CACHE or HOME", "hub_cache");
  }
  ASSIGN_OR_RETURN(hub::Session session, hub::open_session(access, pull.id, tuning, pull.stop));
  return hub::SnapshotPull(std::move(session), pull, access.cache).run();
}

Result<std::vector<std::string>> search_hub(const HubAccess& access, std::string_view text, std::stop_token stop,
                                            const HubTuning& tuning) {
  HubTuning once = tuning;
  once.attempts = 1;
  ASSIGN_OR_RETURN(const hub::Session session,
                   hub::open_session(access, HubId{std::string(text), "main"}, once, std::move(stop)));
  hub::SmallRequest request{
      .url = fmt::format("{}/api/models?limit=10&search={}", session.endpoint, hub::url_encode(text, false)),
      .what = "models of that name"};
  RETURN_IF_ERROR(hub::perform(session, {&request, 1}));
  if (request.response.status != 200) return hub::status_error(session, request.what, request.response);
  ASSIGN_OR_RETURN(const nlohmann::json found, parse_json(request.body, request.what));
  std::vector<std::string> ids;
  if (!found.is_array()) return ids;
  for (const nlohmann::json& entry : found) {
    if (ids.size() == 10 || !entry.is_object() || !entry.contains("id") || !entry["id"].is_string()) continue;
    std::string id = entry["id"].get<std::string>();
    if (parse_hub_id(id).ok()) ids.push_back(std::move(id));
  }
  return ids;
}

std::string byte_text(uint64_t bytes) {
  constexpr std::array kUnits = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (value /= 1000.0; value >= 999.5 && unit + 1 < kUnits.size(); ++unit) value /= 1000.0;
  return fmt::format("{:.{}f} {}", value, value < 9.95 ? 1 : 0, kUnits[unit]);
}

}  // namespace inferneo
