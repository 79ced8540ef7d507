#include "manager/answer_cache.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "base/result.h"

namespace inferneo {
namespace {

constexpr size_t kEntryBytes = 256;  // about: list node, map node, control block, and what the allocator adds
constexpr size_t kStep = size_t{1} << 20;

size_t bytes_of(const std::vector<TokenLogprobs>& logprobs) {
  size_t bytes = logprobs.size() * sizeof(TokenLogprobs);
  for (const TokenLogprobs& entry : logprobs) bytes += entry.top.size() * sizeof(entry.top.front()) + sizeof(void*) * 2;
  return bytes;
}

// What is hashed, without two meanings: every part is of fixed size or has its length before it.
class Question {
 public:
  template <typename T>
  Question& add(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    bytes_.append(bytes, sizeof(T));
    return *this;
  }
  Question& add(std::string_view text) {
    add(uint64_t{text.size()});
    bytes_.append(text);
    return *this;
  }
  Question& add(std::span<const Token> tokens) {
    add(uint64_t{tokens.size()});
    if (!tokens.empty()) bytes_.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
    return *this;
  }
  Question& add(const std::optional<int>& value) { return add(value.has_value()).add(value.value_or(0)); }
  Question& add(const std::vector<std::string>& texts) {
    add(uint64_t{texts.size()});
    for (const std::string& text : texts) add(std::string_view(text));
    return *this;
  }

  AnswerKey key() const {
    AnswerKey key{};
    const int hashed = EVP_Digest(bytes_.data(), bytes_.size(), key.data(), nullptr, EVP_sha256(), nullptr);
    INFERNEO_CHECK(hashed == 1, "SHA-256 is not there");
    return key;
  }

 private:
  std::string bytes_;
};

}  // namespace

size_t CachedAnswer::bytes() const {
  return events.capacity() * sizeof(Event) + bytes_of(logprobs) + bytes_of(prompt_logprobs);
}

bool has_certain_answer(const SamplingParams& sampling) {
  return sampling.answer_cache && sampling.temperature == 0.0F && sampling.prompt_rows == PromptRows::none;
}

// All of SamplingParams but the seed and the number of guesses, which decide no greedy token. Some of the rest (top_p)
// decides none either, and is here all the same: a miss costs time, a wrong hit trust.
AnswerKey answer_key(const AnswerQuestion& question) {
  const SamplingParams& s = question.sampling;
  Question all;
  all.add(question.prompt).add(question.salt).add(question.skip_special_tokens);
  all.add(s.temperature).add(s.top_k).add(s.top_p).add(s.min_p).add(s.typical_p);
  all.add(s.repetition_penalty).add(s.presence_penalty).add(s.frequency_penalty);
  all.add(uint64_t{s.logit_bias.size()});
  for (const auto& [token, bias] : s.logit_bias) all.add(token).add(bias);
  all.add(s.stop).add(std::span<const Token>(s.stop_token_ids)).add(s.ignore_eos).add(s.min_tokens).add(s.max_tokens);
  all.add(s.n).add(s.logprobs).add(s.prompt_logprobs).add(s.echo);
  all.add(static_cast<int>(s.grammar.kind)).add(std::string_view(s.grammar.text)).add(s.grammar.choices);
  return all.key();
}

std::shared_ptr<const CachedAnswer> AnswerCache::find(const AnswerKey& key, TimePoint now) {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    ++counts_.misses;
    return nullptr;
  }
  if (options_.longest && now - found->second->made > *options_.longest) {
    remove(found->second);
    ++counts_.evictions;
    ++counts_.misses;
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, found->second);
  ++counts_.hits;
  return found->second->answer;
}

void AnswerCache::insert(const AnswerKey& key, std::shared_ptr<const CachedAnswer> answer, TimePoint now) {
  const size_t bytes = answer->bytes() + sizeof(CachedAnswer) + kEntryBytes;
  if (bytes > max_answer_bytes()) return;
  grow(bytes);
  const std::lock_guard lock(mutex_);
  // One that asked at the same time may have been quicker; the newer one is as good, and younger.
  if (const auto found = by_key_.find(key); found != by_key_.end()) remove(found->second);
  if (!make_room(bytes)) return;
  entries_.push_front({key, std::move(answer), bytes, now});
  by_key_[key] = entries_.begin();
  bytes_ += bytes;
}

// Asks without the lock: whoever is asked may have to wait for somebody who looks at the counts.
void AnswerCache::grow(size_t bytes) {
  size_t wanted = 0;
  {
    const std::lock_guard lock(mutex_);
    if (bytes_ + bytes <= taken_ || taken_ == options_.max_bytes) return;
    wanted = std::min(options_.max_bytes, std::max({taken_ + kStep, taken_ * 2, bytes_ + bytes}));
  }
  if (options_.may_take && !options_.may_take(wanted)) return;
  const std::lock_guard lock(mutex_);
  taken_ = std::max(taken_, wanted);
}

bool AnswerCache::make_room(size_t bytes) {
  if (bytes > taken_) return false;  // before anybody leaves for nothing
  while (bytes_ + bytes > taken_ && !entries_.empty()) {
    remove(std::prev(entries_.end()));
    ++counts_.evictions;
  }
  return bytes_ + bytes <= taken_;
}

void AnswerCache::remove(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

CacheCounts AnswerCache::counts() const {
  const std::lock_guard lock(mutex_);
  CacheCounts counts = counts_;
  counts.bytes = bytes_;
  return counts;
}

}  // namespace inferneo
