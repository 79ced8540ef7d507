#include "kv_disk/kv_disk.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/log.h"
#include "kv_disk/kv_folder.h"

namespace inferneo {
namespace {

constexpr const char* kBook = "prefix cache";
constexpr size_t kSpareShare = 16;   // of the memory, which stays free
constexpr size_t kLeastBlocks = 64;  // a limit that holds fewer of a model's blocks is too small for it
constexpr int kWriterNice = 10;      // requests come first

void name_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

// The hash of all that a model's blocks have in common.
KvKey model_key(const KvTierSpec& spec) {
  std::string text = fmt::format("{}\nblock {}", spec.content, spec.block_size);
  for (const size_t bytes : spec.bytes_per_block) text += fmt::format(" {}", bytes);
  return kv_root_key(text, {});
}

}  // namespace

// What a tier and the threads share of one model.
struct KvDisk::Model {
  KvKey key{};
  std::vector<size_t> bytes_per_block;  // [groups]
  std::mutex waking;
  std::function<void()> wake;  // guarded by `waking`; none once the tier is gone

  // Guarded by the state's mutex.
  std::deque<std::pair<KvFetched, MemoryLedger::Booking>> come;
  size_t come_bytes = 0;
  bool gone = false;

  std::atomic<uint64_t> read_bytes{0};
  std::atomic<uint64_t> written_bytes{0};
  std::atomic<uint64_t> rejected{0};

  void tell() {
    const std::lock_guard lock(waking);
    if (wake) wake();
  }
};

struct KvDisk::State {
  struct WriteJob {
    std::shared_ptr<Model> model;
    KvTierBlock block;
    std::vector<std::byte> bytes;
    MemoryLedger::Booking booking;
  };
  struct ReadJob {
    std::shared_ptr<Model> model;
    uint64_t fetch = 0;
    std::vector<KvTierBlock> blocks;
    size_t next = 0;
    bool cancelled = false;
  };
  State(const Options& options, MemoryLedger& ledger_in)
      : folder(options.folder, options.max_bytes), ledger(ledger_in) {}

  void write_loop();
  void read_loop();
  std::list<ReadJob>::iterator next_read();
  void read_one(std::unique_lock<std::mutex>& lock, std::list<ReadJob>::iterator job);
  void turn_off(const Error& error);
  bool is_off() const { return off || stopping; }
  Result<MemoryLedger::Booking> book(size_t bytes) const;

  KvFolder folder;
  MemoryLedger& ledger;
  std::atomic<bool> off{false};
  std::atomic<bool> stopping{false};

  mutable std::mutex mutex;
  std::condition_variable to_write;
  std::condition_variable to_read;
  std::condition_variable room;  // to write
  std::deque<WriteJob> writes;
  std::unordered_set<KvFileId, KvFileIdHash> pending;  // to be written, or being written
  size_t writing_bytes = 0;
  TimePoint give_up = TimePoint::max();  // of writing
  std::list<ReadJob> reads;              // in the order in which they take turns

  std::thread writer;
  std::thread reader;
};

Result<MemoryLedger::Booking> KvDisk::State::book(size_t bytes) const {
  // Asked first: a refusal of the ledger would make models leave, and a cache is not worth that.
  if (ledger.used() + bytes + ledger.budget() / kSpareShare > ledger.budget()) {
    return make_error(ErrorCode::out_of_memory, "memory is not plenty");
  }
  return ledger.reserve(kBook, MemoryPurpose::staging, bytes);
}

void KvDisk::State::turn_off(const Error& error) {
  if (off.exchange(true)) return;
  log_warning("prefix_cache_dir {}: {}; the prefix cache is in memory alone from now on", folder.path(), error.message);
}

void KvDisk::State::write_loop() {
  name_thread("kv-writer");
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kWriterNice);
  std::unique_lock lock(mutex);
  while (true) {
    to_write.wait(lock, [this] { return !writes.empty() || stopping; });
    if (writes.empty() || SteadyClock().now() >= give_up) return;
    WriteJob job = std::move(writes.front());
    writes.pop_front();
    lock.unlock();
    const KvTierBlock& block = job.block;
    const KvFileHead head{job.model->key, block.key, block.parent, block.group, block.tokens, job.bytes.size()};
    if (!off) {
      if (const Status written = folder.write(head, job.bytes); written.ok()) {
        job.model->written_bytes += job.bytes.size();
      } else {
        turn_off(written.error());
      }
    }
    const size_t bytes = job.bytes.size();
    job.bytes = {};
    job.booking = {};
    lock.lock();
    pending.erase(kv_file_id(job.model->key, block.key, block.group));
    writing_bytes -= bytes;
    room.notify_all();
  }
}

// The first whose model has room for what comes.
std::list<KvDisk::State::ReadJob>::iterator KvDisk::State::next_read() {
  return std::ranges::find_if(reads, [](const ReadJob& job) {
    if (job.cancelled || job.model->gone) return true;  // to be forgotten
    const size_t bytes = job.model->bytes_per_block[static_cast<size_t>(job.blocks[job.next].group)];
    return job.model->come_bytes == 0 || job.model->come_bytes + bytes <= kReading;
  });
}

void KvDisk::State::read_loop() {
  name_thread("kv-reader");
  std::unique_lock lock(mutex);
  while (true) {
    auto job = reads.end();
    to_read.wait(lock, [&] { return stopping || (job = next_read()) != reads.end(); });
    if (stopping) return;
    if (job->cancelled || job->model->gone) {
      reads.erase(job);
    } else {
      read_one(lock, job);
    }
  }
}

void KvDisk::State::read_one(std::unique_lock<std::mutex>& lock, std::list<ReadJob>::iterator job) {
  const std::shared_ptr<Model> model = job->model;
  const KvTierBlock& block = job->blocks[job->next];  // a job stays until this thread erases it
  const size_t bytes = model->bytes_per_block[static_cast<size_t>(block.group)];
  lock.unlock();
  KvFetched fetched{.fetch = job->fetch, .index = static_cast<int32_t>(job->next), .bytes = {}};
  const TimePoint began = SteadyClock().now();
  Result<MemoryLedger::Booking> booking = off ? make_error(ErrorCode::unavailable, "off") : book(bytes);
  if (booking.ok()) {
    fetched.bytes.resize(bytes);
    const KvFileHead head{model->key, block.key, block.parent, block.group, block.tokens, bytes};
    if (const Status read = folder.read(head, fetched.bytes); read.ok()) {
      model->read_bytes += bytes;
      fetched.reading = SteadyClock().now() - began;
    } else {
      fetched.bytes = {};
      model->rejected += read.error().code == ErrorCode::malformed ? 1 : 0;
    }
  }
  lock.lock();
  fetched.last = fetched.bytes.empty() || ++job->next == job->blocks.size();
  const bool last = fetched.last;
  const bool wanted = !job->cancelled && !model->gone;
  if (wanted) {
    model->come_bytes += fetched.bytes.size();
    model->come.emplace_back(std::move(fetched), booking.ok() ? *std::move(booking) : MemoryLedger::Booking());
  }
  if (last || !wanted) {
    reads.erase(job);
  } else {
    reads.splice(reads.end(), reads, job);  // the others' turn
  }
  if (!wanted) return;
  lock.unlock();
  model->tell();
  lock.lock();
}

class KvDisk::Tier final : public KvTier {
 public:
  Tier(std::shared_ptr<State> state, std::shared_ptr<Model> model)
      : state_(std::move(state)),
        model_(std::move(model)),
        evictions_before_(state_->folder.usage(model_->key).evictions) {}
  ~Tier() override {
    {
      const std::lock_guard lock(model_->waking);
      model_->wake = {};
    }
    const std::lock_guard lock(state_->mutex);
    model_->gone = true;
    model_->come.clear();
    state_->to_read.notify_one();
  }
  Tier(const Tier&) = delete;
  Tier& operator=(const Tier&) = delete;

  bool contains(const KvKey& key, int32_t group) const override {
    return !state_->is_off() && state_->folder.contains(kv_file_id(model_->key, key, group));
  }

  bool wants(const KvKey& key, int32_t group) const override {
    if (state_->is_off()) return false;
    const KvFileId id = kv_file_id(model_->key, key, group);
    if (state_->folder.contains(id)) return false;
    const std::lock_guard lock(state_->mutex);
    return !state_->pending.contains(id);
  }

  bool store(const KvTierBlock& block, std::span<const std::span<const std::byte>> planes) override {
    size_t bytes = 0;
    for (const std::span<const std::byte> plane : planes) bytes += plane.size();
    if (state_->is_off() || bytes != model_->bytes_per_block[static_cast<size_t>(block.group)]) return false;
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->writing_bytes != 0 && state_->writing_bytes + bytes > kWriting) return false;
      state_->writing_bytes += bytes;
    }
    Result<MemoryLedger::Booking> booking = state_->book(bytes);
    const bool booked = booking.ok();
    State::WriteJob job{model_, block, {}, {}};
    if (booked) {
      job.booking = *std::move(booking);
      job.bytes.reserve(bytes);
      for (const std::span<const std::byte> plane : planes)
        job.bytes.insert(job.bytes.end(), plane.begin(), plane.end());
    }
    const std::lock_guard lock(state_->mutex);
    if (!booked || state_->stopping) {
      state_->writing_bytes -= bytes;
      return false;
    }
    state_->pending.insert(kv_file_id(model_->key, block.key, block.group));
    state_->writes.push_back(std::move(job));
    state_->to_write.notify_one();
    return true;
  }

  void wait_for_room(Duration most) override {
    std::unique_lock lock(state_->mutex);
    (void)state_->room.wait_for(lock, most);
  }

  void fetch(uint64_t id, std::vector<KvTierBlock> blocks) override {
    const std::lock_guard lock(state_->mutex);
    if (state_->is_off() || blocks.empty()) {
      model_->come.emplace_back(KvFetched{.fetch = id, .last = true}, MemoryLedger::Booking());
      return;
    }
    state_->reads.push_back({model_, id, std::move(blocks), 0, false});
    state_->to_read.notify_one();
  }

  void cancel(uint64_t id) override {
    const std::lock_guard lock(state_->mutex);
    for (State::ReadJob& job : state_->reads) {
      if (job.model == model_ && job.fetch == id) job.cancelled = true;
    }
    std::erase_if(model_->come, [&](const auto& come) {
      if (come.first.fetch != id) return false;
      model_->come_bytes -= come.first.bytes.size();
      return true;
    });
    state_->to_read.notify_one();
  }

  std::vector<KvFetched> take(size_t max_bytes) override {
    std::vector<KvFetched> taken;
    size_t bytes = 0;
    const std::lock_guard lock(state_->mutex);
    while (!model_->come.empty()) {
      const size_t next = model_->come.front().first.bytes.size();
      if (!taken.empty() && bytes + next > max_bytes) break;
      bytes += next;
      model_->come_bytes -= next;
      taken.push_back(std::move(model_->come.front().first));
      model_->come.pop_front();
    }
    if (bytes > 0) state_->to_read.notify_one();
    return taken;
  }

  PrefixTierStats stats() const override {
    const KvFolder::Usage usage = state_->folder.usage(model_->key);
    PrefixTierStats stats;
    stats.bytes = usage.bytes;
    stats.evictions = usage.evictions - evictions_before_;
    stats.read_bytes = model_->read_bytes;
    stats.written_bytes = model_->written_bytes;
    stats.rejected = model_->rejected;
    return stats;
  }

 private:
  const std::shared_ptr<State> state_;
  const std::shared_ptr<Model> model_;
  const uint64_t evictions_before_;  // of an earlier load
};

KvDisk::KvDisk(const Options& options, MemoryLedger& ledger) : state_(std::make_shared<State>(options, ledger)) {
  if (const Status opened = state_->folder.open(); !opened.ok()) {
    state_->turn_off(opened.error());
    return;
  }
  log_info("cached prefixes on disk: {}, {:.2f} of {:.2f} GiB", options.folder,
           static_cast<double>(state_->folder.bytes()) / (1 << 30), static_cast<double>(options.max_bytes) / (1 << 30));
  State* const state = state_.get();  // the threads end before it does
  state->writer = std::thread([state] { state->write_loop(); });
  state->reader = std::thread([state] { state->read_loop(); });
}

KvDisk::~KvDisk() { stop(Duration{0}); }

std::unique_ptr<KvTier> KvDisk::open(const KvTierSpec& spec, std::function<void()> wake) {
  if (state_->is_off()) return nullptr;
  const size_t largest = *std::ranges::max_element(spec.bytes_per_block);
  if (largest > state_->folder.max_bytes() / kLeastBlocks) {
    log_warning(
        "{}: a block of its KV cache has {} bytes, and prefix_cache_disk_gb has no room for {} of them: its cached "
        "prefixes stay in memory alone",
        spec.model, largest, kLeastBlocks);
    return nullptr;
  }
  auto model = std::make_shared<Model>();
  model->key = model_key(spec);
  model->bytes_per_block = spec.bytes_per_block;
  model->wake = std::move(wake);
  return std::make_unique<Tier>(state_, std::move(model));
}

void KvDisk::stop(Duration grace) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->give_up = std::min(state_->give_up, SteadyClock().now() + grace);
    state_->stopping = true;
    state_->to_write.notify_all();
    state_->to_read.notify_all();
  }
  if (state_->writer.joinable()) state_->writer.join();
  if (state_->reader.joinable()) state_->reader.join();
  const std::lock_guard lock(state_->mutex);
  state_->writes.clear();
  state_->pending.clear();
  state_->reads.clear();
}

}  // namespace inferneo
