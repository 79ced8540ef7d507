#include "models/cuda/rank_pages.h"

namespace inferneo::cuda {
namespace {

class RankRange final : public PageRange {
 public:
  explicit RankRange(std::vector<std::unique_ptr<PageRange>> ranges) : ranges_(std::move(ranges)) {}
  std::byte* data() const override { return ranges_[0]->data(); }
  size_t capacity() const override { return ranges_[0]->capacity(); }
  size_t committed() const override { return ranges_[0]->committed(); }
  Status commit(size_t bytes) override {
    const size_t before = committed();
    for (const auto& range : ranges_) {
      Status committed = range->commit(bytes);
      if (committed.ok()) continue;
      shrink(before);
      return committed;
    }
    return ok_status();
  }
  void shrink(size_t bytes) override {
    for (const auto& range : ranges_) range->shrink(bytes);
  }

 private:
  std::vector<std::unique_ptr<PageRange>> ranges_;  // [ranks]
};

}  // namespace

RankPages::RankPages(std::shared_ptr<Device> first, const std::vector<RankDevice>& others) {
  sources_.push_back({std::make_unique<DevicePages>(std::move(first)), nullptr});
  for (const RankDevice& other : others)
    sources_.push_back({std::make_unique<DevicePages>(other.device), other.ledger});
}

Result<std::unique_ptr<PageRange>> RankPages::reserve(MemoryLedger& ledger, const std::string& model,
                                                      MemoryPurpose purpose, size_t max_bytes) {
  std::vector<std::unique_ptr<PageRange>> ranges;
  std::vector<std::byte*> bases;
  for (const Source& source : sources_) {
    MemoryLedger& books = source.ledger != nullptr ? *source.ledger : ledger;
    ASSIGN_OR_RETURN(std::unique_ptr<PageRange> range, source.pages->reserve(books, model, purpose, max_bytes));
    bases.push_back(range->data());
    ranges.push_back(std::move(range));
  }
  reserved_[bases[0]] = bases;
  return std::unique_ptr<PageRange>(std::make_unique<RankRange>(std::move(ranges)));
}

std::span<std::byte* const> RankPages::bases(std::byte* first) const {
  const auto found = reserved_.find(first);
  return found == reserved_.end() ? std::span<std::byte* const>() : found->second;
}

}  // namespace inferneo::cuda
