// The memory ledger: every byte that grows with models or requests is booked here, by device, model and purpose,
// through the allocators themselves, so that the books cannot lie. Budgets are ceilings of the ledger.
//
// Thread-safe. A Booking is move-only and gives its bytes back when it dies. A Hold sets bytes aside for a model that
// is about to be loaded, so that what others book meanwhile cannot make its load fail half way. A Use says that a model
// uses memory that is booked to a content instead of a model, because several may use it: it is booked once, to its
// content, and a model's going frees it only when nobody else uses it. The ledger outlives all three.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace inferneo {

enum class MemoryPurpose : uint8_t { weights, packed_weights, kv, workspace, staging, cache, asleep, held };
const char* memory_purpose_name(MemoryPurpose purpose);

class MemoryLedger {
 public:
  explicit MemoryLedger(size_t budget_bytes) : budget_(budget_bytes) {}

  class Booking {
   public:
    Booking() = default;
    Booking(Booking&& other) noexcept { swap(other); }
    Booking& operator=(Booking&& other) noexcept {
      Booking gone(std::move(other));
      swap(gone);
      return *this;
    }
    ~Booking();
    size_t bytes() const { return bytes_; }
    Status resize(size_t bytes);  // grows within the budget or shrinks

   private:
    friend class MemoryLedger;
    void swap(Booking& other) noexcept {
      std::swap(ledger_, other.ledger_);
      std::swap(key_, other.key_);
      std::swap(bytes_, other.bytes_);
    }
    MemoryLedger* ledger_ = nullptr;
    std::pair<std::string, MemoryPurpose> key_;
    size_t bytes_ = 0;
  };

  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : ledger_(std::exchange(other.ledger_, nullptr)), model_(std::move(other.model_)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(ledger_, other.ledger_);
      std::swap(model_, other.model_);
      return *this;
    }
    ~Hold();  // what is left of it is free again

   private:
    friend class MemoryLedger;
    MemoryLedger* ledger_ = nullptr;
    std::string model_;
  };

  class Use {
   public:
    Use() = default;
    Use(Use&& other) noexcept { swap(other); }
    Use& operator=(Use&& other) noexcept {
      Use gone(std::move(other));
      swap(gone);
      return *this;
    }
    ~Use();

   private:
    friend class MemoryLedger;
    void swap(Use& other) noexcept {
      std::swap(ledger_, other.ledger_);
      std::swap(content_, other.content_);
      std::swap(model_, other.model_);
    }
    MemoryLedger* ledger_ = nullptr;
    std::string content_;
    std::string model_;
  };

  // `content` is a name that no model has. What is booked to it comes out of the hold of a model that uses it.
  Use use(const std::string& content, const std::string& model);

  // Memory that several models use at this moment.
  struct Shared {
    size_t bytes = 0;
    std::vector<std::string> users = {};
  };
  std::vector<Shared> shared() const;

  // Sets `bytes` aside for `model`: they count as used, and what reserve() and resize() book for it comes out of them
  // first. One hold per model at a time (already_exists); out_of_memory when they are not free.
  Result<Hold> hold(const std::string& model, size_t bytes);

  // Told the bytes that were not there, after each refusal and outside the ledger's lock; {} ends that. The callback
  // may run for a moment longer on another thread that was refused before.
  void on_refusal(std::function<void(size_t bytes)> callback);

  // out_of_memory, naming model, purpose, need and room, when the budget would be exceeded.
  Result<Booking> reserve(const std::string& model, MemoryPurpose purpose, size_t bytes);

  size_t budget() const { return budget_; }
  size_t used() const;
  size_t peak() const;
  std::map<std::pair<std::string, MemoryPurpose>, size_t> books() const;
  // What would be free if `model` went: what is booked to it and to contents that only it uses. No holds.
  size_t used_by(const std::string& model) const;
  // The same with the contents that others use as well: what it would take if it were alone.
  size_t needed_by(const std::string& model) const;
  size_t used_by(const std::string& model, MemoryPurpose purpose) const;

 private:
  Status check_room(const std::string& model, MemoryPurpose purpose, size_t bytes) const;
  size_t booked_to(const std::string& name) const;  // holds left out
  size_t sum_of(const std::string& model, bool with_shared) const;
  const std::string& payer(const std::string& name) const;
  Status change(const std::pair<std::string, MemoryPurpose>& key, size_t from, size_t to);
  Status change_locked(const std::pair<std::string, MemoryPurpose>& key, size_t from, size_t to);

  const size_t budget_;
  mutable std::mutex mutex_;
  size_t used_ = 0;
  size_t peak_ = 0;
  std::map<std::pair<std::string, MemoryPurpose>, size_t> books_;
  std::map<std::string, std::map<std::string, int>> users_;  // content -> model -> uses
  std::shared_ptr<const std::function<void(size_t)>> on_refusal_;
};

}  // namespace inferneo
