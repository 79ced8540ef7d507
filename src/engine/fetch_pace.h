// Whether fetching the beginning of a prompt from below memory is cheaper than computing it, from what both took so
// far.
//
// Fetching takes bytes over the tier's bandwidth, as it was while it read; computing takes tokens over the rate of
// steps that read prompts. What is not known yet is found out by fetching. A tier that was too slow is asked again in
// time: each refusal takes a little off what is believed of it. Pure: no clock.
#pragma once

#include <algorithm>
#include <optional>

#include "base/clock.h"

namespace inferneo {

class FetchPace {
 public:
  void took_prompt(int32_t num_tokens, Duration time) { prompts_.add(num_tokens, to_seconds(time)); }
  // Of a fetch of which nothing came before it was given up: no bytes, and the time until then.
  void took_fetch(size_t bytes, Duration time) {
    fetches_.add(static_cast<double>(std::max<size_t>(bytes, 1)), to_seconds(time));
  }

  bool pays(int32_t num_tokens, size_t bytes) {
    const std::optional<double> computing = prompts_.seconds(num_tokens);
    const std::optional<double> fetching = fetches_.seconds(static_cast<double>(bytes));
    if (!computing || !fetching || *fetching < *computing) return true;
    fetches_.forget();
    return false;
  }

  // How long a sequence waits for a fetch at most: as long as computing the tokens would take.
  Duration patience(int32_t num_tokens) const {
    const double seconds = prompts_.seconds(num_tokens).value_or(kUnknownPatience);
    return std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(std::clamp(seconds, kLeastPatience, kMostPatience)));
  }

 private:
  static constexpr double kUnknownPatience = 2.0;  // seconds
  static constexpr double kLeastPatience = 0.02;   // a clock's tick and a thread's wake-up must fit
  static constexpr double kMostPatience = 5.0;     // well below what counts as a stall

  // Older measurements count less: a fifth is forgotten with each new one.
  class Rate {
   public:
    void add(double amount, double seconds) {
      amount_ = kKept * amount_ + amount;
      seconds_ = kKept * seconds_ + seconds;
    }
    void forget() { seconds_ *= kAfterRefusal; }
    std::optional<double> seconds(double amount) const {
      return amount_ > 0.0 ? std::optional<double>(amount * seconds_ / amount_) : std::nullopt;
    }

   private:
    static constexpr double kKept = 0.8;
    static constexpr double kAfterRefusal = 0.98;
    double amount_ = 0.0;
    double seconds_ = 0.0;
  };
  Rate prompts_;  // tokens
  Rate fetches_;  // bytes
};

}  // namespace inferneo
