// Outcomes as bytes: 64-bit little-endian words, a version first, then the number of arms, then each arm's numbers in
// the order of visit(), and a hash of all that at the end. Reading and writing run through the same visit(), so that
// they cannot disagree. Another layout is another version.
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <type_traits>

#include "experiments/outcomes.h"
#include "experiments/siphash.h"

namespace inferneo {
namespace {

constexpr uint64_t kVersion = 1;
constexpr int64_t kMostCount = int64_t{1} << 53;
constexpr SipKey kCheckKey{0x6f7574636f6d6573U, 0x76657273696f6e31U};

uint64_t check_of(std::span<const std::byte> bytes) {
  return siphash_2_4(kCheckKey, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& bytes) : bytes_(bytes) {}
  void word(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<std::byte>(value >> shift));
  }
  void number(const double& value) { word(std::bit_cast<uint64_t>(value)); }
  void count(const int64_t& value) { word(static_cast<uint64_t>(value)); }
  void count(const uint64_t& value) { word(value); }
  static constexpr bool kReads = false;

 private:
  std::vector<std::byte>& bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t word() {
    if (bytes_.size() < 8) {
      is_sound_ = false;
      return 0;
    }
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value |= static_cast<uint64_t>(bytes_[static_cast<size_t>(i)]) << (8 * i);
    bytes_ = bytes_.subspan(8);
    return value;
  }
  void number(double& value) {
    value = std::bit_cast<double>(word());
    // Of an empty stream the least value is plus and the greatest minus infinity.
    if (std::isnan(value)) is_sound_ = false;
  }
  template <typename T>
  void count(T& value) {
    const uint64_t stored = word();
    if (stored > static_cast<uint64_t>(kMostCount)) is_sound_ = false;
    value = static_cast<T>(stored);
  }
  bool is_sound() const { return is_sound_; }
  static constexpr bool kReads = true;

 private:
  std::span<const std::byte> bytes_;
  bool is_sound_ = true;
};

template <typename Archive, typename T>
using Field = std::conditional_t<Archive::kReads, T, const T>;

template <typename Archive>
void visit(Archive& archive, Field<Archive, Moments>& moments) {
  archive.count(moments.count);
  for (auto* value : {&moments.mean, &moments.squares, &moments.least, &moments.greatest}) archive.number(*value);
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, LogHistogram>& histogram) {
  for (auto& bin : histogram.bins()) archive.count(bin);
  if constexpr (Archive::kReads) histogram.recount();
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, UnitSums>& units) {
  for (auto& value : units.counts) archive.number(value);
  for (auto& value : units.sums) archive.number(value);
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, MeanEvidence>& evidence) {
  visit<Archive>(archive, evidence.moments);
  visit<Archive>(archive, evidence.units);
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, Tally>& tally) {
  archive.number(tally.count);
  archive.number(tally.sum);
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, RateEvidence>& evidence) {
  auto& state = evidence.state();
  for (auto* tally : {&state.warm_up, &state.live, &state.frozen}) visit<Archive>(archive, *tally);
  archive.number(state.frozen_log_mixture);
  visit<Archive>(archive, state.units);
}

template <typename Archive>
void visit(Archive& archive, Field<Archive, ArmOutcomes>& arm) {
  archive.count(arm.requests);
  for (auto& count : arm.errors) archive.count(count);
  for (auto& count : arm.finishes) archive.count(count);
  archive.count(arm.prompt_tokens);
  archive.count(arm.completion_tokens);
  visit<Archive>(archive, arm.feedback);
  for (auto& latency : arm.latencies) {
    visit<Archive>(archive, latency.moments);
    visit<Archive>(archive, latency.histogram);
  }
  visit<Archive>(archive, arm.failures);
  visit<Archive>(archive, arm.late_first_tokens);
  archive.count(arm.counted_requests);
  for (auto& evidence : arm.log_latencies) visit<Archive>(archive, evidence);
  visit<Archive>(archive, arm.log_completion_tokens);
  visit<Archive>(archive, arm.error_rate);
  visit<Archive>(archive, arm.scores);
  visit<Archive>(archive, arm.first_tokens);
}

bool is_possible(const Tally& tally) {
  return tally.count >= 0 && tally.count <= static_cast<double>(kMostCount) && tally.sum >= 0 &&
         tally.sum <= tally.count;
}

bool is_possible(const Moments& moments) {
  return std::isfinite(moments.mean) && std::isfinite(moments.squares) && moments.squares >= 0;
}

bool is_possible(const RateEvidence& evidence) {
  const RateEvidence::State& state = evidence.state();
  return is_possible(state.warm_up) && is_possible(state.live) && is_possible(state.frozen) &&
         std::isfinite(state.frozen_log_mixture);
}

bool is_possible(const ArmOutcomes& arm) {
  bool possible = is_possible(arm.feedback) && is_possible(arm.failures) && is_possible(arm.late_first_tokens) &&
                  is_possible(arm.error_rate) && is_possible(arm.scores.moments) &&
                  is_possible(arm.log_completion_tokens.moments);
  for (const LatencyTotals& latency : arm.latencies) possible = possible && is_possible(latency.moments);
  for (const MeanEvidence& evidence : arm.log_latencies) possible = possible && is_possible(evidence.moments);
  return possible;
}

Error unreadable(std::string_view why) {
  return make_error(
      ErrorCode::malformed,
      fmt::format("the outcomes kept of an A/B test cannot be read: {}; remove the test and add it again to "
                  "measure anew",
                  why));
}

}  // namespace

std::vector<std::byte> ExperimentOutcomes::to_bytes() const {
  std::vector<std::byte> bytes;
  Writer writer(bytes);
  writer.word(kVersion);
  writer.word(arms_.size());
  for (const ArmOutcomes& arm : arms_) visit<Writer>(writer, arm);
  writer.word(check_of(bytes));
  return bytes;
}

Status ExperimentOutcomes::from_bytes(std::span<const std::byte> bytes) {
  static const size_t kArmBytes = [] {
    std::vector<std::byte> one;
    Writer writer(one);
    visit<Writer>(writer, ArmOutcomes{});
    return one.size();
  }();
  if (bytes.size() < 24) return unreadable(fmt::format("{} bytes are too few", bytes.size()));
  Reader reader(bytes);
  const uint64_t version = reader.word();
  if (version != kVersion) return unreadable(fmt::format("they have version {}, and this is {}", version, kVersion));
  if (reader.word() != arms_.size()) return unreadable(fmt::format("they are not of {} arms", arms_.size()));
  if (bytes.size() != 24 + arms_.size() * kArmBytes) return unreadable("they have another length");
  if (Reader(bytes.last(8)).word() != check_of(bytes.first(bytes.size() - 8))) return unreadable("they are damaged");
  std::vector<ArmOutcomes> arms(arms_.size());
  for (ArmOutcomes& arm : arms) {
    visit<Reader>(reader, arm);
    if (!reader.is_sound() || !is_possible(arm)) return unreadable("a number is out of range");
  }
  arms_ = std::move(arms);
  return ok_status();
}

}  // namespace inferneo
