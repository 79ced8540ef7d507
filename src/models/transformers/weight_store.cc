#include "models/transformers/weight_store.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "base/log.h"
#include "formats/checkpoint.h"

namespace inferneo {
namespace {

constexpr size_t kPopulateBytes = size_t{64} << 20;
constexpr int kMaxPopulateThreads = 4;
constexpr int kWriterNice = 10;  // requests come first

// Who a content is in the books.
std::string owner_of(const std::string& key) { return "weights " + key.substr(0, 12); }

Duration time_since_start() { return SteadyClock().now() - TimePoint{}; }

Result<std::vector<std::string>> paths_of(const ModelDirectory& directory, const Checkpoint& headers) {
  std::vector<std::string> paths;
  for (const std::string& shard : headers.shards()) {
    ASSIGN_OR_RETURN(std::string path, directory.resolve(shard));
    paths.push_back(std::move(path));
  }
  return paths;
}

Result<std::vector<FileIdentity>> identify_all(const std::vector<std::string>& paths) {
  std::vector<FileIdentity> identities;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const FileIdentity identity, identify_file(path));
    identities.push_back(identity);
  }
  return identities;
}

// Reads what is not in memory and fills the page table: requests do not wait for it page by page. The result says
// whether the whole file could be read; an error is the caller's own.
Result<bool> populate(const MappedFile& mapping, int threads, const LoadProgressCallback& progress) {
  const size_t total = mapping.bytes().size();
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};
  std::atomic<bool> good{true};
  std::atomic<bool> wanted{true};
  Status told = ok_status();
  const auto work = [&](bool report) {
    for (size_t offset = 0; good && wanted && (offset = next.fetch_add(kPopulateBytes)) < total;) {
      if (!mapping.populate(offset, kPopulateBytes)) good = false;
      done += std::min(kPopulateBytes, total - offset);
      if (!report || !progress) continue;
      told = progress({"mapping weights", done, total});
      wanted = told.ok();
    }
  };
  std::vector<std::thread> helpers;
  const auto pieces = static_cast<int>((total + kPopulateBytes - 1) / kPopulateBytes);
  for (int i = 1; i < std::min({threads, kMaxPopulateThreads, pieces}); ++i) helpers.emplace_back(work, false);
  work(true);
  for (std::thread& helper : helpers) helper.join();
  if (told.ok() && progress) told = progress({"mapping weights", total, total});
  RETURN_IF_ERROR(told);
  return good.load();
}

}  // namespace

const char* weight_origin_name(WeightOrigin origin) {
  switch (origin) {
    case WeightOrigin::packed:
      return "packed";
    case WeightOrigin::mapped:
      return "mapped";
    case WeightOrigin::shared:
      return "shared";
  }
  return "unknown";
}

// Weights and, while it runs, the thread that writes them into the cache.
struct WeightStore::Stored {
  ModelWeights weights;
  std::thread writer;

  Stored() = default;
  ~Stored() {
    if (writer.joinable()) writer.join();
  }
  Stored(const Stored&) = delete;
  Stored& operator=(const Stored&) = delete;
};

struct WeightStore::Slot {
  std::mutex loading;
  std::weak_ptr<Stored> stored;  // guarded by `loading`
};

// What the headers and the files' keys say.
struct WeightStore::Plan {
  std::vector<std::string> paths;
  std::vector<FileIdentity> identities;
  size_t file_bytes = 0;
  size_t header_bytes = 0;  // booked while headers are looked at
  PackedContent content;    // without a key when it is not known
};

WeightStore::WeightStore(const Options& options)
    : keys_(options.max_bytes > 0 ? options.folder : std::string(), options.hub_cache),
      cache_(std::make_shared<const PackedCache>(options.folder, options.max_bytes)),
      deadline_(std::make_shared<std::atomic<Duration::rep>>(Duration::max().count())) {}

WeightStore::~WeightStore() = default;

void WeightStore::stop_writing(Duration grace) { *deadline_ = (time_since_start() + grace).count(); }

Result<WeightStore::Plan> WeightStore::make_plan(const WeightRequest& request, bool hash) const {
  Plan plan;
  ASSIGN_OR_RETURN(const Checkpoint headers,
                   Checkpoint::open_headers(*request.ledger, request.model, *request.directory));
  ASSIGN_OR_RETURN(WeightLayout layout, plan_weights(*request.spec, headers, request.quantization));
  ASSIGN_OR_RETURN(plan.paths, paths_of(*request.directory, headers));
  ASSIGN_OR_RETURN(plan.identities, identify_all(plan.paths));
  plan.file_bytes = headers.file_bytes();
  plan.header_bytes = headers.booked_bytes();
  plan.content.index = fmt::format("isa {}\n{}", request.isa, layout.text);
  plan.content.section_bytes = std::move(layout.section_bytes);

  std::string identity = plan.content.index;
  size_t hashed = 0;
  for (size_t i = 0; i < plan.paths.size(); ++i) {
    const auto tell = [&](uint64_t bytes) {
      if (!request.progress) return ok_status();
      return request.progress({"hashing weights", hashed + bytes, plan.file_bytes});
    };
    ASSIGN_OR_RETURN(const std::string key,
                     hash ? keys_.key_of(plan.paths[i], tell) : keys_.known_key_of(plan.paths[i]));
    if (key.empty()) return plan;
    identity += "file " + key + "\n";
    hashed += plan.identities[i].size;
  }
  plan.content.key = hash_text(identity);
  return plan;
}

std::shared_ptr<WeightStore::Slot> WeightStore::slot_of(const std::string& key) {
  const std::lock_guard lock(mutex_);
  std::erase_if(slots_,
                [](const auto& entry) { return entry.second.use_count() == 1 && entry.second->stored.expired(); });
  std::shared_ptr<Slot>& slot = slots_[key];
  if (slot == nullptr) slot = std::make_shared<Slot>();
  return slot;
}

Result<WeightLease> WeightStore::load(const WeightRequest& request) {
  ASSIGN_OR_RETURN(const Plan plan, make_plan(request, true));
  const std::shared_ptr<Slot> slot = slot_of(plan.content.key);
  const std::lock_guard lock(slot->loading);
  WeightLease lease;
  lease.use = request.ledger->use(owner_of(plan.content.key), request.model);
  std::shared_ptr<Stored> stored = slot->stored.lock();
  lease.origin = WeightOrigin::shared;
  lease.content = plan.content.key;
  if (stored == nullptr || stored->weights.truncated()) {
    lease.origin = WeightOrigin::mapped;
    ASSIGN_OR_RETURN(stored, map(request, plan));
  }
  if (stored == nullptr) {
    lease.origin = WeightOrigin::packed;
    ASSIGN_OR_RETURN(stored, pack(request, plan));
    keep(request, plan, *stored);
  }
  slot->stored = stored;
  lease.weights = std::shared_ptr<const ModelWeights>(stored, &stored->weights);
  return lease;
}

// Null when there is no file that can be used.
Result<std::shared_ptr<WeightStore::Stored>> WeightStore::map(const WeightRequest& request, const Plan& plan) const {
  auto mapping = cache_->open(*request.ledger, owner_of(plan.content.key), plan.content);
  if (!mapping.ok() && mapping.error().code == ErrorCode::out_of_memory) return mapping.error();
  if (mapping.ok()) {
    ASSIGN_OR_RETURN(const bool whole, populate(**mapping, request.pool->size(), request.progress));
    if (!whole) mapping = make_error(ErrorCode::malformed, "a part of it cannot be read");
  }
  if (!mapping.ok()) {
    if (mapping.error().code != ErrorCode::not_found) {
      log_warning("{}: the packed weights on disk ({}.packed) are not used: {}; packing them anew", request.model,
                  plan.content.key.substr(0, 12), mapping.error().message);
    }
    return std::shared_ptr<Stored>();
  }
  ASSIGN_OR_RETURN(const Checkpoint headers,
                   Checkpoint::open_headers(*request.ledger, request.model, *request.directory));
  auto stored = std::make_shared<Stored>();
  const PackedCache::Sections sections = PackedCache::sections((*mapping)->bytes(), plan.content);
  ASSIGN_OR_RETURN(stored->weights,
                   map_weights(*request.spec, headers, request.quantization, std::move(mapping).value(), sections));
  return stored;
}

Result<std::shared_ptr<WeightStore::Stored>> WeightStore::pack(const WeightRequest& request, const Plan& plan) const {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(*request.ledger, request.model, *request.directory));
  auto stored = std::make_shared<Stored>();
  ASSIGN_OR_RETURN(stored->weights, load_weights(*request.spec, checkpoint, request.quantization, *request.ledger,
                                                 owner_of(plan.content.key), *request.pool, request.progress));
  ASSIGN_OR_RETURN(const std::vector<FileIdentity> now, identify_all(plan.paths));
  if (now != plan.identities) {
    return make_error(ErrorCode::malformed,
                      "a weight file changed while it was being read; load the model again once its files are "
                      "complete");
  }
  return stored;
}

void WeightStore::keep(const WeightRequest& request, const Plan& plan, Stored& stored) const {
  if (!cache_->enabled() || *deadline_ != Duration::max().count()) return;
  stored.writer = std::thread([cache = cache_, deadline = deadline_, content = plan.content, model = request.model,
                               sections = stored.weights.sections()] {
    pthread_setname_np(pthread_self(), "weight-writer");
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kWriterNice);
    const Status written = cache->write(content, sections, [&] { return time_since_start().count() >= *deadline; });
    if (written.ok() || written.error().code == ErrorCode::cancelled) return;
    log_warning("{}: the packed weights are not kept on disk: {}; the next load packs them again", model,
                written.error().message);
  });
}

Result<WeightStore::Need> WeightStore::estimate(const WeightRequest& request) {
  ASSIGN_OR_RETURN(const Plan plan, make_plan(request, false));
  if (!plan.content.key.empty()) {
    const std::shared_ptr<Slot> slot = slot_of(plan.content.key);
    // Being loaded: it will be shared.
    const std::unique_lock lock(slot->loading, std::try_to_lock);
    if (!lock.owns_lock() || !slot->stored.expired()) return Need{plan.header_bytes, 0};
    const size_t mapped = PackedCache::file_bytes(plan.content);
    if (cache_->contains(plan.content)) return Need{mapped + plan.header_bytes, mapped};
  }
  MemoryLedger books(SIZE_MAX);  // the same allocations, never touched
  ASSIGN_OR_RETURN(const Checkpoint headers, Checkpoint::open_headers(books, request.model, *request.directory));
  const size_t before = books.used();
  ASSIGN_OR_RETURN(const ModelWeights weights,
                   allocate_weights(*request.spec, headers, request.quantization, books, request.model));
  const size_t packed = books.used() - before;
  return Need{plan.file_bytes + packed, packed};
}

Result<std::vector<WeightFileCheck>> WeightStore::verify(const ModelDirectory& directory) const {
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const Checkpoint headers, Checkpoint::open_headers(books, directory.name(), directory));
  ASSIGN_OR_RETURN(const std::vector<std::string> paths, paths_of(directory, headers));
  const std::vector<std::string> names = headers.shards();
  std::vector<WeightFileCheck> checks;
  for (size_t i = 0; i < paths.size(); ++i) {
    WeightFileCheck check{names[i], {}, {}};
    ASSIGN_OR_RETURN(check.expected, keys_.known_key_of(paths[i]));
    if (check.expected.starts_with("file:")) check.expected.clear();  // an identity says nothing of the bytes
    ASSIGN_OR_RETURN(check.found, ContentKeys::hash_again(paths[i]));
    checks.push_back(std::move(check));
  }
  return checks;
}

}  // namespace inferneo
