#include "models/onnx/ort_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "tensor/memory.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kAlignment = 64;  // what the library's vector code wants; the header takes as much
constexpr size_t kPage = 4096;
constexpr size_t kWaste = 4;  // a kept block may be larger than what is wanted by this part of it

struct BlockHeader {
  OrtAccount* account = nullptr;
  size_t bytes = 0;
};
static_assert(sizeof(BlockHeader) <= kAlignment);

thread_local OrtAccount* current_account = nullptr;

bool is_mapped(size_t bytes) { return bytes >= kHugePage; }

// Of a whole block, its header included.
size_t block_bytes(size_t size) {
  const size_t step = is_mapped(size + kAlignment) ? kPage : kAlignment;
  return (size + kAlignment + step - 1) / step * step;
}

void* map_block(size_t bytes) {
  const size_t padded = bytes + kHugePage;
  void* const raw = ::mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(raw);
  const size_t skipped = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (skipped > 0) ::munmap(begin, skipped);
  if (skipped < kHugePage) ::munmap(begin + skipped + bytes, kHugePage - skipped);
  ::madvise(begin + skipped, bytes, MADV_HUGEPAGE);
  return begin + skipped;
}

void* new_block(size_t bytes) { return is_mapped(bytes) ? map_block(bytes) : std::aligned_alloc(kAlignment, bytes); }

void release_block(void* block, size_t bytes) {
  if (is_mapped(bytes)) {
    ::munmap(block, bytes);
  } else {
    std::free(block);
  }
}

}  // namespace

OrtAccount::Scope::Scope(OrtAccount& account) : before_(current_account) { current_account = &account; }
OrtAccount::Scope::~Scope() { current_account = before_; }

OrtAccount::~OrtAccount() {
  for (const Kept& kept : kept_) release_block(kept.block, kept.bytes);
}

void OrtAccount::change(int64_t bytes) {
  const size_t now =
      bytes_.fetch_add(static_cast<size_t>(bytes), std::memory_order_relaxed) + static_cast<size_t>(bytes);
  size_t peak = peak_.load(std::memory_order_relaxed);
  while (bytes > 0 && now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

void OrtAccount::reset_peak() {
  const std::lock_guard lock(mutex_);
  for (const Kept& kept : kept_) {
    release_block(kept.block, kept.bytes);
    change(-static_cast<int64_t>(kept.bytes));
  }
  kept_.clear();
  peak_.store(bytes(), std::memory_order_relaxed);
}

// The smallest kept block that is large enough and not much too large; null: there is none.
void* OrtAccount::take_kept(size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto best = kept_.end();
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
    if (kept->bytes < bytes || kept->bytes - bytes > kept->bytes / kWaste) continue;
    if (best == kept_.end() || kept->bytes < best->bytes) best = kept;
  }
  if (best == kept_.end()) return nullptr;
  void* const block = best->block;
  *best = kept_.back();
  kept_.pop_back();
  return block;
}

// Gives kept blocks back, the oldest first, until so many bytes more are within the peak.
void OrtAccount::make_room(size_t wanted) {
  const std::lock_guard lock(mutex_);
  size_t given = 0;
  while (given < kept_.size() && bytes() + wanted > peak()) {
    release_block(kept_[given].block, kept_[given].bytes);
    change(-static_cast<int64_t>(kept_[given].bytes));
    ++given;
  }
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(given));
}

bool OrtAccount::keep(void* block, size_t bytes) {
  if (bytes < kLeastKept || !keeping_.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(mutex_);
  if (kept_.size() == kMostKept) return false;
  kept_.push_back({block, bytes});
  return true;
}

void* allocate_for_ort(size_t size) {
  if (size > SIZE_MAX / 2) return nullptr;
  size_t bytes = block_bytes(size);
  OrtAccount* const account = current_account;
  void* block = nullptr;
  if (account != nullptr && bytes >= OrtAccount::kLeastKept) {
    block = account->take_kept(bytes);
    if (block != nullptr) {
      bytes = reinterpret_cast<const BlockHeader*>(block)->bytes;
    } else {
      account->make_room(bytes);
    }
  }
  if (block == nullptr) {
    block = new_block(bytes);
    if (block == nullptr) return nullptr;
    if (account != nullptr) account->change(static_cast<int64_t>(bytes));
  }
  new (block) BlockHeader{account, bytes};
  return static_cast<std::byte*>(block) + kAlignment;
}

void free_for_ort(void* memory) {
  if (memory == nullptr) return;
  void* const block = static_cast<std::byte*>(memory) - kAlignment;
  const BlockHeader header = *reinterpret_cast<const BlockHeader*>(block);
  if (header.account != nullptr) {
    if (header.account->keep(block, header.bytes)) return;
    header.account->change(-static_cast<int64_t>(header.bytes));
  }
  release_block(block, header.bytes);
}

}  // namespace inferneo::onnx
