// An original's answer beside its copy's: what each was, in what they differ, and what many pairs say. Pure.
//
// Times of computing are those of the steps that a request was part of, the waits between them left out: a copy waits
// for whole minutes when others have work, which says nothing about its model.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/log_histogram.h"
#include "experiments/moments.h"
#include "serving/inference_service.h"

namespace inferneo {

// What one side said, gathered event by event: of sample 0 alone.
class ShadowAnswer {
 public:
  static constexpr size_t kMaxTokens = 8192;     // compared one by one
  static constexpr size_t kMaxText = 16 * 1024;  // bytes kept, where texts are

  explicit ShadowAnswer(bool keep_text = false) : keep_text_(keep_text) {}

  void add(const PromptInfo& info);
  void add(const OutputDelta& delta);
  void end(const GenerateOutcome& outcome);

  const std::string& model() const { return model_; }
  const std::optional<Error>& error() const { return error_; }
  std::optional<FinishReason> finish() const { return finish_; }
  int32_t prompt_tokens() const { return usage_.prompt_tokens; }
  int32_t completion_tokens() const { return usage_.completion_tokens; }
  uint64_t text_bytes() const { return text_bytes_; }
  const std::string& text() const { return text_; }  // its beginning; empty where texts are not kept
  const RequestStats& stats() const { return stats_; }

  bool same_text(const ShadowAnswer& other) const {
    return text_bytes_ == other.text_bytes_ && text_hash_ == other.text_hash_;
  }
  // The position of the first token that differs, or where one of the two ends; none: they are the same, or cannot be
  // compared since the two models read the prompt as different tokens.
  std::optional<int32_t> first_difference(const ShadowAnswer& other) const;

 private:
  static constexpr uint64_t kNoBytes = 0xcbf29ce484222325ULL;

  const bool keep_text_;
  std::string model_;
  uint64_t prompt_hash_ = kNoBytes;
  uint64_t text_hash_ = kNoBytes;
  uint64_t text_bytes_ = 0;
  std::vector<Token> tokens_;
  int64_t num_tokens_ = 0;  // tokens_ may hold fewer
  std::string text_;
  std::optional<FinishReason> finish_;
  std::optional<Error> error_;
  Usage usage_;
  RequestStats stats_;
};

// Seconds of computing.
enum class ShadowTime : uint8_t { time_to_first_token, inter_token, end_to_end };
inline constexpr size_t kNumShadowTimes = 3;
std::string_view shadow_time_name(ShadowTime time);

struct ShadowPair {
  struct Side {
    std::string model;
    std::string finish;  // "stop", "length"
    int32_t prompt_tokens = 0;
    int32_t completion_tokens = 0;
    std::array<std::optional<double>, kNumShadowTimes> computing = {};
    double waited = 0.0;  // seconds from its submission to its end that were no computing
    std::string text;     // its beginning, where texts are kept
  };
  std::string request_id;
  int64_t time = 0;  // seconds since 1970
  Side original;
  Side copy;
  bool same_text = false;
  std::optional<int32_t> first_difference = {};
};
ShadowPair compare(const ShadowAnswer& original, const ShadowAnswer& copy);  // without request_id and time

// What the pairs say together.
struct ShadowDifferences {
  struct Values {
    Moments moments;
    LogHistogram histogram;
    void add(double value) {
      moments.add(value);
      histogram.add(value);
    }
  };
  struct Compared {
    Values original;
    Values copy;
    Values ratio;  // of the copy to the original
    void add(double of_original, double of_copy);
  };
  int64_t pairs = 0;
  int64_t same_text = 0;
  int64_t same_finish = 0;
  Values first_difference;  // of pairs that have one
  Compared completion_tokens;
  std::array<Compared, kNumShadowTimes> computing;

  void add(const ShadowPair& pair);
};

}  // namespace inferneo
