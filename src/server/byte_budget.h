// Bytes that many hold together, up to a limit. Thread-safe; a share belongs to one owner and gives back what it holds.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace inferneo {

class ByteBudget {
 public:
  explicit ByteBudget(size_t limit) : limit_(limit) {}

  class Share {
   public:
    Share() = default;
    explicit Share(std::shared_ptr<ByteBudget> budget) : budget_(std::move(budget)) {}
    Share(Share&& other) noexcept : budget_(std::move(other.budget_)), held_(std::exchange(other.held_, 0)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(held_, other.held_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->used_ -= held_;
    }

    // False when there is no room for that; the share is then as before.
    bool grow_to(size_t bytes) {
      if (bytes <= held_ || budget_ == nullptr) return true;
      const size_t more = bytes - held_;
      if (budget_->used_.fetch_add(more) + more > budget_->limit_) {
        budget_->used_ -= more;
        return false;
      }
      held_ = bytes;
      return true;
    }

   private:
    std::shared_ptr<ByteBudget> budget_;
    size_t held_ = 0;
  };

 private:
  const size_t limit_;
  std::atomic<size_t> used_{0};
};

}  // namespace inferneo
