#include "models/onnx/ort_memory.h"

#include <cstdlib>

namespace inferneo::onnx {
namespace {

constexpr size_t kAlignment = 64;  // what the library's vector code wants; the header takes as much

struct BlockHeader {
  OrtAccount* account = nullptr;
  size_t bytes = 0;
};
static_assert(sizeof(BlockHeader) <= kAlignment);

thread_local OrtAccount* current_account = nullptr;

}  // namespace

OrtAccount::Scope::Scope(OrtAccount& account) : before_(current_account) { current_account = &account; }
OrtAccount::Scope::~Scope() { current_account = before_; }

void OrtAccount::change(int64_t bytes) {
  const size_t now =
      bytes_.fetch_add(static_cast<size_t>(bytes), std::memory_order_relaxed) + static_cast<size_t>(bytes);
  size_t peak = peak_.load(std::memory_order_relaxed);
  while (bytes > 0 && now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

void* allocate_for_ort(size_t size) {
  if (size > SIZE_MAX - 2 * kAlignment) return nullptr;
  const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  void* const block = std::aligned_alloc(kAlignment, rounded);
  if (block == nullptr) return nullptr;
  auto* const header = new (block) BlockHeader{current_account, rounded};
  if (header->account != nullptr) header->account->change(static_cast<int64_t>(rounded));
  return static_cast<std::byte*>(block) + kAlignment;
}

void free_for_ort(void* memory) {
  if (memory == nullptr) return;
  auto* const header = reinterpret_cast<BlockHeader*>(static_cast<std::byte*>(memory) - kAlignment);
  if (header->account != nullptr) header->account->change(-static_cast<int64_t>(header->bytes));
  std::free(header);
}

}  // namespace inferneo::onnx
