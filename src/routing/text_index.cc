#include "routing/text_index.h"

#include <algorithm>

#include "routing/text_match.h"

namespace inferneo {
namespace {

constexpr uint64_t kExactScanned = 1;
constexpr uint64_t kFoldedScanned = 2;
constexpr uint64_t kSetRun = 4;
constexpr size_t kSmallestSet = 2;

constexpr size_t words_of(size_t bits) { return (bits + 63) / 64; }
bool get_bit(const uint64_t* words, size_t bit) { return (words[bit / 64] >> (bit % 64) & 1) != 0; }
void set_bit(uint64_t* words, size_t bit) { words[bit / 64] |= uint64_t{1} << (bit % 64); }

}  // namespace

uint32_t TextIndex::Literals::add(std::string literal) {
  const auto [at, added] = numbers.try_emplace(std::move(literal), static_cast<uint32_t>(literals.size()));
  if (added) literals.push_back(at->first);
  return at->second;
}

uint32_t TextIndex::add_literal(const std::string& literal, bool ignore_case) {
  return ignore_case ? folded_.add(lower_ascii(literal)) * 2 + 1 : exact_.add(literal) * 2;
}

uint32_t TextIndex::add_regex(const std::shared_ptr<const RoutingRegex>& regex) {
  const auto [at, added] = regex_numbers_.try_emplace(regex->pattern(), static_cast<uint32_t>(regexes_.size()));
  if (added) {
    Filtered filtered{regex, {}};
    for (const std::string& atom : regex->atoms()) filtered.atoms.push_back(folded_.add(atom));
    regexes_.push_back(std::move(filtered));
  }
  return at->second;
}

void TextIndex::build() {
  std::vector<const RoutingRegex*> together;
  for (uint32_t i = 0; i < regexes_.size(); ++i) {
    if (!regexes_[i].atoms.empty()) continue;
    together.push_back(regexes_[i].regex.get());
    in_set_.push_back(i);
  }
  if (together.size() >= kSmallestSet) set_ = RegexSet::build(together);
  if (together.size() < regexes_.size()) {
    for (const std::string_view letter : kUnfoldedLetters) unfolded_.push_back(folded_.add(std::string(letter)));
  }
  exact_.scanned = kExactScanned;
  folded_.scanned = kFoldedScanned;
  num_words_ = 1;
  for (Literals* literals : {&exact_, &folded_}) {
    literals->matcher = LiteralMatcher(literals->literals, literals == &folded_);
    literals->first_word = num_words_;
    num_words_ += words_of(literals->literals.size());
  }
  known_word_ = num_words_;
  match_word_ = known_word_ + words_of(regexes_.size());
  num_words_ = match_word_ + words_of(regexes_.size());
}

size_t TextIndex::num_filtered() const {
  return static_cast<size_t>(std::count_if(regexes_.begin(), regexes_.end(),
                                           [](const Filtered& filtered) { return !filtered.atoms.empty(); }));
}

bool TextIndex::seen(const Literals& literals, uint32_t number, Passages passages, uint64_t* words) {
  if ((words[0] & literals.scanned) == 0) {
    words[0] |= literals.scanned;
    for (const std::string_view passage : passages) literals.matcher.scan(passage, words + literals.first_word);
  }
  return get_bit(words + literals.first_word, number);
}

bool TextIndex::has_literal(uint32_t number, Passages passages, uint64_t* words) const {
  return seen((number & 1) != 0 ? folded_ : exact_, number / 2, passages, words);
}

bool TextIndex::may_match(const Filtered& filtered, Passages passages, uint64_t* words) const {
  const auto is_seen = [&](uint32_t literal) { return seen(folded_, literal, passages, words); };
  return filtered.atoms.empty() || std::any_of(filtered.atoms.begin(), filtered.atoms.end(), is_seen) ||
         std::any_of(unfolded_.begin(), unfolded_.end(), is_seen);
}

void TextIndex::run_set(Passages passages, uint64_t* words, std::vector<int>& hits) const {
  words[0] |= kSetRun;
  for (const std::string_view passage : passages) {
    if (!set_->match(passage, hits)) return;  // each is tried by itself, then
    for (const int hit : hits) {
      set_bit(words + known_word_, in_set_[static_cast<size_t>(hit)]);
      set_bit(words + match_word_, in_set_[static_cast<size_t>(hit)]);
    }
  }
  for (const uint32_t number : in_set_) set_bit(words + known_word_, number);
}

bool TextIndex::has_match(uint32_t number, Passages passages, uint64_t* words, std::vector<int>& hits) const {
  const Filtered& filtered = regexes_[number];
  if (filtered.atoms.empty() && set_ && (words[0] & kSetRun) == 0) run_set(passages, words, hits);
  if (get_bit(words + known_word_, number)) return get_bit(words + match_word_, number);
  set_bit(words + known_word_, number);
  if (!may_match(filtered, passages, words)) return false;
  const bool matches = std::any_of(passages.begin(), passages.end(),
                                   [&](std::string_view passage) { return filtered.regex->matches(passage); });
  if (matches) set_bit(words + match_word_, number);
  return matches;
}

}  // namespace inferneo
