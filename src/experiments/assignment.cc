#include "experiments/assignment.h"

#include <algorithm>
#include <cmath>

#include "base/result.h"

namespace inferneo {
namespace {

// Two fixed keys, so that the halves of a salt's key are independent of each other.
constexpr SipKey kFirstHalf{0x496e6665726e656fU, 0x6578706572696d65U};
constexpr SipKey kSecondHalf{0x6e74732061726d73U, 0x6b65797320616e64U};

uint64_t points(double share) {  // share in [0, 1)
  return static_cast<uint64_t>(std::ldexp(share, 64));
}

}  // namespace

SipKey salt_key(std::string_view salt) noexcept {
  return {siphash_2_4(kFirstHalf, salt), siphash_2_4(kSecondHalf, salt)};
}

TrafficSplit::TrafficSplit(std::span<const double> shares) : num_arms_(shares.size()) {
  INFERNEO_CHECK(num_arms_ >= 2 && num_arms_ <= kMaxArms, "a split has two to eight arms");
  uint64_t next = 0;
  for (size_t arm = 1; arm < num_arms_; ++arm) {
    INFERNEO_CHECK(shares[arm] > 0 && shares[arm] < 1, "an arm's share is between 0 and 1");
    full_[arm] = shares[arm];
    first_[arm] = next;
    owned_[arm] = points(shares[arm]);
    next += owned_[arm];
  }
}

void TrafficSplit::open(double total) {
  double full = 0.0;
  for (size_t arm = 1; arm < num_arms_; ++arm) full += full_[arm];
  for (size_t arm = 1; arm < num_arms_; ++arm) {
    if (closed_[arm]) continue;
    // Of two arms the share is `total` itself, without a rounding.
    const double share = num_arms_ == 2 ? total : full_[arm] * (total / full);
    owned_[arm] = points(std::clamp(share, 0.0, full_[arm]));
  }
}

void TrafficSplit::close(size_t arm) {
  INFERNEO_CHECK(arm > 0 && arm < num_arms_, "only an arm besides A can be closed");
  closed_[arm] = true;
  owned_[arm] = 0;
}

double TrafficSplit::share(size_t arm) const {
  if (arm > 0) return std::ldexp(static_cast<double>(owned_[arm]), -64);
  double rest = 1.0;
  for (size_t other = 1; other < num_arms_; ++other) rest -= share(other);
  return rest;
}

std::string_view assignment_reason_name(AssignmentReason reason) {
  switch (reason) {
    case AssignmentReason::key:
      return "key";
    case AssignmentReason::random:
      return "random";
    case AssignmentReason::forced:
      return "forced";
    case AssignmentReason::unknown_arm:
      return "unknown_arm";
    case AssignmentReason::not_running:
      return "not_running";
    case AssignmentReason::promoted:
      return "promoted";
  }
  return "unknown";
}

}  // namespace inferneo
