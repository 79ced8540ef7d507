#include "engine/block_pool.h"

#include <fmt/format.h>

namespace inferneo {

BlockPool::BlockPool(int32_t capacity) : capacity_(capacity) { INFERNEO_CHECK(capacity > 0, "empty block pool"); }

BlockPool::Block& BlockPool::at(BlockId block) {
  INFERNEO_CHECK(block >= 0 && block < total(), "no such block");
  return blocks_[static_cast<size_t>(block)];
}

const BlockPool::Block& BlockPool::at(BlockId block) const { return const_cast<BlockPool*>(this)->at(block); }

void BlockPool::push_front(BlockId block) {
  Block& b = at(block);
  b.prev = kNoBlock;
  b.next = head_;
  (head_ == kNoBlock ? tail_ : at(head_).prev) = block;
  head_ = block;
}

void BlockPool::push_back(BlockId block) {
  Block& b = at(block);
  b.prev = tail_;
  b.next = kNoBlock;
  (tail_ == kNoBlock ? head_ : at(tail_).next) = block;
  tail_ = block;
}

void BlockPool::unlink(BlockId block) {
  Block& b = at(block);
  (b.prev == kNoBlock ? head_ : at(b.prev).next) = b.next;
  (b.next == kNoBlock ? tail_ : at(b.next).prev) = b.prev;
  b.prev = b.next = kNoBlock;
}

void BlockPool::grow(int32_t new_total) {
  INFERNEO_CHECK(new_total >= total() && new_total <= capacity_, "pool grows beyond its capacity");
  const int32_t old_total = total();
  blocks_.resize(static_cast<size_t>(new_total));
  for (BlockId block = new_total - 1; block >= old_total; --block) push_front(block);
  num_free_ += new_total - old_total;
}

PrefixNodeId BlockPool::drop_last() {
  INFERNEO_CHECK(can_drop_last(), "the last block is in use");
  const BlockId block = total() - 1;
  const PrefixNodeId content = at(block).content;
  unlink(block);
  --(content != 0 ? num_cached_ : num_free_);
  blocks_.pop_back();
  return content;
}

BlockPool::Taken BlockPool::take() {
  INFERNEO_CHECK(head_ != kNoBlock, "no unreferenced block");
  const BlockId block = head_;
  unlink(block);
  Block& b = at(block);
  const PrefixNodeId evicted = b.content;
  --(evicted != 0 ? num_cached_ : num_free_);
  b.content = 0;
  b.ref_count = 1;
  return {block, evicted};
}

void BlockPool::add_ref(BlockId block) {
  Block& b = at(block);
  if (b.ref_count == 0) {
    INFERNEO_CHECK(b.content != 0, "a free block has nothing to share");
    unlink(block);
    --num_cached_;
  }
  ++b.ref_count;
}

void BlockPool::release(BlockId block) {
  Block& b = at(block);
  INFERNEO_CHECK(b.ref_count > 0, "block released twice");
  if (--b.ref_count > 0) return;
  if (b.content != 0) {
    push_back(block);
    ++num_cached_;
  } else {
    push_front(block);
    ++num_free_;
  }
}

void BlockPool::set_content(BlockId block, PrefixNodeId node) {
  Block& b = at(block);
  if (b.ref_count == 0 && (b.content != 0) != (node != 0)) {
    INFERNEO_CHECK(node == 0, "content is given to referenced blocks only");
    unlink(block);
    push_front(block);
    --num_cached_;
    ++num_free_;
  }
  b.content = node;
}

std::vector<BlockId> BlockPool::eviction_order() const {
  std::vector<BlockId> order;
  for (BlockId block = head_; block != kNoBlock; block = at(block).next) order.push_back(block);
  return order;
}

Status BlockPool::check_integrity() const {
  int32_t free = 0;
  int32_t cached = 0;
  int32_t referenced = 0;
  for (const Block& b : blocks_) {
    if (b.ref_count < 0) return make_error(ErrorCode::internal, "a block has a negative reference count");
    ++(b.ref_count > 0 ? referenced : b.content != 0 ? cached : free);
  }
  if (free != num_free_ || cached != num_cached_ || free + cached + referenced != total() || total() > capacity_) {
    return make_error(
        ErrorCode::internal,
        fmt::format("block counts are off: {} free (counted {}), {} cached (counted {}), {} referenced, {} "
                    "total of {}",
                    num_free_, free, num_cached_, cached, referenced, total(), capacity_));
  }
  int32_t listed = 0;
  bool seen_cached = false;
  BlockId prev = kNoBlock;
  for (BlockId block = head_; block != kNoBlock; block = at(block).next) {
    const Block& b = at(block);
    if (b.ref_count != 0 || b.prev != prev || ++listed > total()) {
      return make_error(ErrorCode::internal, fmt::format("the list of unreferenced blocks is broken at {}", block));
    }
    if (seen_cached && b.content == 0) return make_error(ErrorCode::internal, "a free block waits behind a cached one");
    seen_cached = b.content != 0;
    prev = block;
  }
  if (listed != free + cached || tail_ != prev) {
    return make_error(ErrorCode::internal, "the list of unreferenced blocks has the wrong length");
  }
  return ok_status();
}

}  // namespace inferneo
