// Whole answers of one loaded model to greedy requests, so that the same question is not computed twice.
//
// Goal: a request whose tokens are certain to be an earlier one's gets them without the engine. What is kept is what
// the engine said (tokens, logprobs, ends), not text: who is answered from here goes through the same decoding and the
// same stop strings as everybody. An entry is found by the SHA-256 of all that decides the tokens: the prompt's tokens,
// every sampling parameter and the salt. Model, version, weights and quantisation are not in it: the cache belongs to
// one loaded model, is made with it and goes with it.
//
// Non-goals: sampled requests (their answers shall differ), requests under way (two that come at once are both
// computed), answers that outlive the model's stay in memory.
//
// Bounded in bytes, the least recently used first, and in age. Thread-safe: one mutex, held for a look-up.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/cache_counts.h"
#include "base/clock.h"
#include "engine/request.h"

namespace inferneo {

using AnswerKey = std::array<uint8_t, 32>;

// One answer, as the engine gave it.
struct CachedAnswer {
  struct Event {  // a token, or the end of a sample
    int32_t sample = 0;
    Token token = -1;       // of an end: the one that ended it; -1: none did
    int32_t logprobs = -1;  // their place below; -1: none were wanted
    bool is_end = false;
    bool is_stop_token = false;
    FinishReason reason = FinishReason::stop;  // of an end
  };
  std::vector<Event> events;
  std::vector<TokenLogprobs> logprobs;
  std::vector<TokenLogprobs> prompt_logprobs;
  FinishReason reason = FinishReason::stop;  // of the request
  int32_t output_tokens = 0;                 // that the engine made, over all samples

  size_t bytes() const;  // about, on the heap
};

// Whether the tokens of such a request are certain, so that they may be kept. Defaults have been filled in.
bool has_certain_answer(const SamplingParams& sampling);

struct AnswerQuestion {
  std::span<const Token> prompt;
  const SamplingParams& sampling;
  std::string_view salt;
  bool skip_special_tokens = true;  // decides where stop strings are found
};
AnswerKey answer_key(const AnswerQuestion& question);

class AnswerCache {
 public:
  struct Options {
    size_t max_bytes = 0;
    std::optional<Duration> longest = {};             // that an answer is kept; none: no limit
    std::function<bool(size_t bytes)> may_take = {};  // asked before it takes so many in all; none: yes
  };
  explicit AnswerCache(Options options) : options_(std::move(options)) {}

  // Null: it is not there, or too old.
  std::shared_ptr<const CachedAnswer> find(const AnswerKey& key, TimePoint now);
  void insert(const AnswerKey& key, std::shared_ptr<const CachedAnswer> answer, TimePoint now);
  // A longer answer would drive too many others out.
  size_t max_answer_bytes() const { return options_.max_bytes / 4; }
  CacheCounts counts() const;  // of requests

 private:
  struct Entry {
    AnswerKey key;
    std::shared_ptr<const CachedAnswer> answer;
    size_t bytes = 0;
    TimePoint made{};
  };
  using Entries = std::list<Entry>;  // the most recently used first
  void remove(Entries::iterator entry);
  void grow(size_t bytes);
  bool make_room(size_t bytes);

  const Options options_;  // may_take: called without the lock
  mutable std::mutex mutex_;
  Entries entries_;
  std::map<AnswerKey, Entries::iterator> by_key_;
  size_t bytes_ = 0;
  size_t taken_ = 0;  // of max_bytes, that it may use
  CacheCounts counts_;
};

}  // namespace inferneo
