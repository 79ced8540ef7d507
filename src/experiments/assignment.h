// Which arm a key belongs to. Pure: the same key, salt and shares give the same arm in every process.
//
// The keyed hash of a key is a point of [0, 2^64). Each arm but the first owns the beginning of a fixed interval whose
// length is its full share; everything else belongs to arm A. A ramp opens the intervals further: a key moves at most
// once, and only from A to the arm that it keeps. A stopped arm's interval falls back to A.
// Boundaries are floor(share * 2^64), so that a share is exact to 2^-64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "experiments/siphash.h"

namespace inferneo {

inline constexpr size_t kMaxArms = 8;

// The hash's key from a salt. Different salts give independent assignments.
SipKey salt_key(std::string_view salt) noexcept;

class TrafficSplit {
 public:
  TrafficSplit() = default;  // everything to arm A
  // `shares` of all arms, A first: positive, 2 to kMaxArms of them, with the sum 1.
  explicit TrafficSplit(std::span<const double> shares);

  // Opens the intervals of all arms but A to `total` of the traffic together, in proportion; at most their full shares.
  void open(double total);
  void close(size_t arm);  // for good; arm > 0

  size_t arm_of(uint64_t hash) const noexcept {
    for (size_t arm = 1; arm < num_arms_; ++arm) {
      if (hash - first_[arm] < owned_[arm]) return arm;
    }
    return 0;
  }
  double share(size_t arm) const;                           // of the traffic at present
  uint64_t owned(size_t arm) const { return owned_[arm]; }  // of 2^64; arm > 0

 private:
  size_t num_arms_ = 1;
  std::array<uint64_t, kMaxArms> first_{};
  std::array<uint64_t, kMaxArms> owned_{};
  std::array<double, kMaxArms> full_{};  // shares once the ramp has ended
  std::array<bool, kMaxArms> closed_{};
};

// What a request brings. Strings live as long as the call.
struct AssignmentInput {
  std::string_view key = {};         // user, session or request id; empty: `random` decides
  uint64_t random = 0;               // uniform; used without a key only
  std::string_view forced_arm = {};  // of the override header; empty: none
};

enum class AssignmentReason : uint8_t {
  key,          // the hash of its key
  random,       // it had none
  forced,       // by the header
  unknown_arm,  // the header named an arm that there is not; assigned as without it
  not_running,  // the test does not run: arm A, and nothing to record
  promoted,     // the winner gets everything, and nothing to record
};
std::string_view assignment_reason_name(AssignmentReason reason);

struct Assignment {
  size_t arm = 0;
  AssignmentReason reason = AssignmentReason::not_running;
  // Whether its outcome is evidence: drawn by chance, at the full shares. What somebody chose, or what ran during the
  // ramp, is in the arm's totals alone.
  bool counted = false;
  uint64_t unit = 0;  // the hash: requests of one key share it; goes into the outcome
};

}  // namespace inferneo
