// Which model answers where the choice is open and no rule matched, and which follows when one cannot serve. Pure: what
// changes (loads, a counter, a random number) comes as arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "inferneo/routing.h"

namespace inferneo {

// ---- the choice among candidates

struct CandidateView {
  double weight = 1.0;
  double load = 0.0;                   // share of its places in use
  std::optional<double> latency = {};  // seconds to the first token, lately; none: not measured yet
  bool available = true;               // neither failed nor draining
};

// The index of a candidate that is available, or none. `turn` counts the choices (round_robin, and among equals),
// `draw` is uniform in [0, 1) (weighted). default_model: the first; least_loaded: the least load; lowest_latency: one
// that has not been measured, else the least latency; weighted: in proportion to the weights of those that are
// available.
std::optional<size_t> choose_candidate(RoutingStrategy strategy, std::span<const CandidateView> candidates,
                                       uint64_t turn, double draw);

// ---- a chain

struct ChainLink {
  bool failed = false;          // cannot be loaded, or its engine died
  bool overloaded = false;      // its queue takes nothing more
  bool out_of_context = false;  // the request is longer than the model's context
  bool over_deadline = false;   // it would not answer in time
  int64_t queue_depth = 0;      // requests that wait for it
};

enum class FallbackReason : uint8_t { none, failed, overloaded, out_of_context, over_deadline, spill_over };
std::string_view fallback_reason_name(FallbackReason reason);

struct FallbackDecision {
  std::optional<size_t> target = {};             // of the chain; none: no model of it can serve
  FallbackReason reason = FallbackReason::none;  // why not the link asked for first; none: it is that
};

// The first link from `from` on that can serve and has fewer than `spill_over_at` requests waiting (0: however many).
// Where all that can serve are that full, the one of them with the shortest queue: spilling over is a preference, no
// failure.
FallbackDecision choose_link(std::span<const ChainLink> chain, size_t from, int64_t spill_over_at);

}  // namespace inferneo
