#include "routing/regex_set.h"

#include <re2/re2.h>
#include <re2/set.h>

#include <string>
#include <utility>

namespace inferneo {

struct RegexSet::Impl {
  RE2::Set set;
};

RegexSet::RegexSet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RegexSet::~RegexSet() = default;

std::unique_ptr<const RegexSet> RegexSet::build(std::span<const RoutingRegex* const> regexes, size_t memory) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(static_cast<int64_t>(memory));
  auto impl = std::make_unique<Impl>(Impl{RE2::Set(options, RE2::UNANCHORED)});
  for (const RoutingRegex* regex : regexes) {
    if (impl->set.Add(regex->pattern(), nullptr) < 0) return nullptr;
  }
  if (!impl->set.Compile()) return nullptr;
  return std::unique_ptr<const RegexSet>(new RegexSet(std::move(impl)));
}

bool RegexSet::match(std::string_view text, std::vector<int>& hits) const {
  RE2::Set::ErrorInfo info{RE2::Set::kNoError};
  hits.clear();
  return impl_->set.Match(re2::StringPiece(text.data(), text.size()), &hits, &info) || info.kind == RE2::Set::kNoError;
}

}  // namespace inferneo
