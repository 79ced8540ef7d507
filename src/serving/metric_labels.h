// The labels of one series. The many series of a model share one list: a copy costs a count, and who writes them all
// can tell by list() that it has written these before. Immutable.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace inferneo {

class MetricLabels {
 public:
  using Pair = std::pair<std::string, std::string>;  // name, value
  using List = std::vector<Pair>;

  MetricLabels() = default;
  MetricLabels(std::initializer_list<Pair> pairs) : MetricLabels(List(pairs)) {}
  explicit MetricLabels(List pairs) {
    if (!pairs.empty()) list_ = std::make_shared<const List>(std::move(pairs));
  }
  // These and one more, behind them.
  MetricLabels with(std::string name, std::string value) const {
    List pairs;
    pairs.reserve(size() + 1);
    pairs.assign(begin(), end());
    pairs.emplace_back(std::move(name), std::move(value));
    return MetricLabels(std::move(pairs));
  }

  const Pair* begin() const { return list_ == nullptr ? nullptr : list_->data(); }
  const Pair* end() const { return list_ == nullptr ? nullptr : list_->data() + list_->size(); }
  size_t size() const { return list_ == nullptr ? 0 : list_->size(); }
  bool empty() const { return list_ == nullptr; }
  const Pair& operator[](size_t i) const { return (*list_)[i]; }
  const Pair& front() const { return list_->front(); }
  const Pair& back() const { return list_->back(); }
  const List* list() const { return list_.get(); }

 private:
  std::shared_ptr<const List> list_;  // null: none
};

}  // namespace inferneo
