#include "routing/text_index.h"

#include <algorithm>

#include "routing/text_match.h"

namespace inferneo {
namespace {

constexpr uint64_t kGuardedRun = 2;
constexpr uint64_t kUnguardedRun = 4;
constexpr uint64_t kOneTry = 256;  // the rest of the first word counts tries of guarded expressions
constexpr uint64_t kFewTries = 8;  // about what a run of a set costs
constexpr size_t kSmallestSet = 2;

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
    // A letter that is no ASCII may be one of theirs in another case.
    if (!filtered.atoms.empty()) {
      for (const std::string_view letter : kUnfoldedLetters) filtered.atoms.push_back(folded_.add(std::string(letter)));
    }
    regexes_.push_back(std::move(filtered));
  }
  return at->second;
}

void TextIndex::build_sets() {
  guarded_.run = kGuardedRun;
  unguarded_.run = kUnguardedRun;
  for (Joined* joined : {&guarded_, &unguarded_}) {
    std::vector<const RoutingRegex*> together;
    for (uint32_t i = 0; i < regexes_.size(); ++i) {
      if (!regexes_[i].regex->joins_well() || regexes_[i].atoms.empty() != (joined == &unguarded_)) continue;
      together.push_back(regexes_[i].regex.get());
      joined->members.push_back(i);
    }
    const bool worth_it = together.size() >= kSmallestSet && (joined == &unguarded_ || together.size() > kFewTries);
    if (worth_it) joined->set = RegexSet::build(together);
    if (joined->set == nullptr) continue;
    for (const uint32_t member : joined->members) regexes_[member].joined = true;
  }
}

void TextIndex::build() {
  build_sets();
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

void TextIndex::scan(Passages passages, uint64_t* words) const {
  words[0] |= kScanned;
  for (const std::string_view passage : passages) {
    LiteralMatcher::scan(passage, exact_.matcher, words + exact_.first_word, folded_.matcher,
                         words + folded_.first_word);
  }
}

std::vector<uint32_t> TextIndex::guards_of(uint32_t regex) const {
  std::vector<uint32_t> numbers;
  for (const uint32_t atom : regexes_[regex].atoms) numbers.push_back(atom * 2 + 1);
  return numbers;
}

bool TextIndex::may_match(const Filtered& filtered, const uint64_t* words) const {
  return std::any_of(filtered.atoms.begin(), filtered.atoms.end(),
                     [&](uint32_t literal) { return get_bit(words + folded_.first_word, literal); });
}

void TextIndex::run_set(const Joined& joined, Passages passages, uint64_t* words, std::vector<int>& hits) const {
  words[0] |= joined.run;
  for (const std::string_view passage : passages) {
    if (!joined.set->match(passage, hits)) return;  // each is tried by itself, then
    for (const int hit : hits) {
      set_bit(words + known_word_, joined.members[static_cast<size_t>(hit)]);
      set_bit(words + match_word_, joined.members[static_cast<size_t>(hit)]);
    }
  }
  for (const uint32_t number : joined.members) set_bit(words + known_word_, number);
}

bool TextIndex::has_match(uint32_t number, Passages passages, uint64_t* words, std::vector<int>& hits) const {
  const auto known = [&] { return get_bit(words + known_word_, number); };
  const auto match = [&] { return get_bit(words + match_word_, number); };
  if (known()) return match();
  const Filtered& filtered = regexes_[number];
  const bool guarded = !filtered.atoms.empty();
  if (guarded && !may_match(filtered, words)) {
    set_bit(words + known_word_, number);
    return false;
  }
  const Joined& joined = guarded ? guarded_ : unguarded_;
  const bool together =
      filtered.joined && (words[0] & joined.run) == 0 && (!guarded || words[0] / kOneTry >= kFewTries);
  if (together) run_set(joined, passages, words, hits);
  if (known()) return match();
  if (guarded) words[0] += kOneTry;
  set_bit(words + known_word_, number);
  const bool matches = std::any_of(passages.begin(), passages.end(),
                                   [&](std::string_view passage) { return filtered.regex->matches(passage); });
  if (matches) set_bit(words + match_word_, number);
  return matches;
}

}  // namespace inferneo
