#include "models/onnx/graph_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "models/onnx/onnx_runner.h"

namespace inferneo::onnx {
namespace {

constexpr int32_t kTokens = 6;
constexpr int32_t kSlots = 4;
constexpr int32_t kTrialSlotTokens = 16;
constexpr int32_t kOtherTokens = kTokens + 1;  // where another text begins
constexpr double kSame = GraphTrial::kSame;
// A graph whose activations are quantised as a whole computes something else for each shape, and is used all the same.
constexpr double kSameModel = 0.3;

class Trial {
 public:
  Trial(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens)
      : session_(session), graph_(graph), slot_tokens_(slot_tokens) {
    for (int32_t i = 0; i < kOtherTokens + kTokens; ++i) {
      tokens_.push_back(static_cast<Token>((i * 7919 + 13) % graph.vocab_size));
    }
  }

  Result<GraphTrial> run(MemoryLedger& ledger, const std::string& model);

 private:
  using Logits = std::vector<float>;  // of one token
  Status bind(MemoryLedger& ledger, const std::string& model);
  // The logits after each row; a row is tokens [position, position + count) of a text in a slot.
  struct Part {
    int32_t slot = 0;
    int32_t position = 0;
    int32_t count = 1;
    int32_t text = 0;  // where it begins in tokens_
  };
  Result<std::vector<Logits>> compute(const std::vector<Part>& parts);
  Result<Logits> compute_whole(MemoryLedger& ledger, const std::string& model);
  void try_skipping(const Logits& whole);
  void try_prompts(const Logits& whole);
  void allow(bool chunks, bool batches) {
    forward_->set_abilities({chunks, batches, found_.abilities.last_logits, found_.abilities.skips_logits});
  }
  double difference(const Logits& a, const Logits& b) const;
  void note(const Logits& logits);

  OnnxSession& session_;
  const OnnxGraph& graph_;
  const int32_t slot_tokens_;
  std::vector<Token> tokens_;
  std::vector<Buffer> memory_;
  std::unique_ptr<OnnxForward> forward_;
  GraphTrial found_;
};

Status Trial::bind(MemoryLedger& ledger, const std::string& model) {
  memory_.clear();
  std::vector<std::byte*> planes;
  const KvCacheSpec slots = slot_spec(graph_, slot_tokens_);
  for (const KvPlaneSpec& plane : slots.groups[0].planes) {
    ASSIGN_OR_RETURN(Buffer memory, Buffer::allocate(ledger, model, MemoryPurpose::staging,
                                                     plane.bytes_per_block * static_cast<size_t>(kSlots)));
    planes.push_back(memory.data());
    memory_.push_back(std::move(memory));
  }
  forward_ = OnnxForward::create(session_, graph_, slot_tokens_);
  forward_->set_abilities(found_.abilities);
  return forward_->bind(std::move(planes), kSlots, {kSlots, kTokens}, ledger, model);
}

Result<std::vector<Trial::Logits>> Trial::compute(const std::vector<Part>& parts) {
  std::vector<Logits> after(parts.size());
  std::vector<OnnxRow> rows;
  for (const Part& part : parts) {
    OnnxRow row;
    row.tokens = std::span<const Token>(tokens_).subspan(static_cast<size_t>(part.text + part.position),
                                                         static_cast<size_t>(part.count));
    row.position = part.position;
    row.slot = part.slot;
    row.first_wanted = part.count - 1;
    rows.push_back(row);
  }
  RETURN_IF_ERROR(forward_->run(rows, [&](std::span<const LogitsPiece> pieces) {
    for (const LogitsPiece& piece : pieces) after[piece.row].assign(piece.logits.begin(), piece.logits.end());
    return ok_status();
  }));
  for (const Logits& logits : after) note(logits);
  return after;
}

void Trial::note(const Logits& logits) {
  for (const float value : logits) {
    found_.largest_logit = std::max(found_.largest_logit, std::abs(static_cast<double>(value)));
  }
}

// Relative to the largest logit; NaN counts as different.
double Trial::difference(const Logits& a, const Logits& b) const {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double apart = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(apart)) return HUGE_VAL;
    largest = std::max(largest, apart);
  }
  return largest / std::max(found_.largest_logit, 1e-6);
}

// All at once: with logits of every token, or else of the last one alone, which is what some exports leave.
Result<Trial::Logits> Trial::compute_whole(MemoryLedger& ledger, const std::string& model) {
  std::optional<Error> first;
  for (const bool last_logits : {false, true}) {
    found_.abilities.last_logits = last_logits;
    RETURN_IF_ERROR(bind(ledger, model));
    Result<std::vector<Logits>> whole = compute({{0, 0, kTokens}});
    if (whole.ok()) return std::move((*whole)[0]);
    if (!first) first = std::move(whole).error();
  }
  return *std::move(first);
}

// All at once again, without the logits of all tokens but the last.
void Trial::try_skipping(const Logits& whole) {
  if (!graph_.first_logits.present() || found_.abilities.last_logits) return;
  found_.abilities.skips_logits = true;
  allow(false, false);
  const Result<std::vector<Logits>> last = compute({{0, 0, kTokens}});
  found_.abilities.skips_logits = last.ok() && difference(whole, (*last)[0]) <= kSame;
  allow(false, false);
}

// Two prompts in one call, where logits of their last tokens alone can be asked for.
void Trial::try_prompts(const Logits& whole) {
  if (!found_.abilities.skips_logits || !found_.abilities.batches) return;
  allow(false, false);
  const Result<std::vector<Logits>> other = compute({{2, 0, kTokens, kOtherTokens}});
  forward_->set_abilities({.batches = true, .skips_logits = true, .prompts = true});
  const Result<std::vector<Logits>> both = compute({{0, 0, kTokens}, {1, 0, kTokens, kOtherTokens}});
  found_.abilities.prompts =
      other.ok() && both.ok() && difference(whole, (*both)[0]) <= kSame && difference((*other)[0], (*both)[1]) <= kSame;
}

Result<GraphTrial> Trial::run(MemoryLedger& ledger, const std::string& model) {
  ASSIGN_OR_RETURN(const Logits whole, compute_whole(ledger, model));
  try_skipping(whole);
  // Token by token behind a first chunk of two.
  ASSIGN_OR_RETURN(std::vector<Logits> steps, compute({{1, 0, 2}}));
  for (int32_t t = 2; t < kTokens; ++t) {
    ASSIGN_OR_RETURN(steps, compute({{1, t, 1}}));
  }
  found_.step_difference = difference(whole, steps[0]);
  if (!(found_.step_difference <= kSameModel)) {
    return make_error(ErrorCode::malformed,
                      fmt::format("the graph does not continue what it began: {} tokens one by one give logits that "
                                  "differ from those of all at once by {:.3g} of the largest",
                                  kTokens, found_.step_difference));
  }
  if (graph_.cache == CacheKind::none) return found_;
  allow(true, false);
  const Result<std::vector<Logits>> first = compute({{2, 0, 2}});
  const Result<std::vector<Logits>> second = compute({{2, 2, kTokens - 2}});
  found_.chunk_difference = first.ok() && second.ok() ? difference(whole, (*second)[0]) : HUGE_VAL;
  found_.abilities.chunks = found_.chunk_difference <= kSame;
  // A long one and two short ones of the same length, which go together where nothing else can, go on by one token,
  // with an idle slot between them.
  allow(false, false);
  ASSIGN_OR_RETURN(const std::vector<Logits> begun, compute({{0, 0, kTokens - 1}, {1, 0, 2}, {3, 0, 2, kOtherTokens}}));
  const std::vector<Part> next = {{0, kTokens - 1, 1}, {1, 2, 1}, {3, 2, 1, kOtherTokens}};
  ASSIGN_OR_RETURN(const std::vector<Logits> alone, compute(next));
  allow(false, true);
  const Result<std::vector<Logits>> together = compute(next);  // over what `alone` wrote, which is the same
  for (size_t i = 0; i < next.size(); ++i) {
    const double apart = together.ok() ? difference(alone[i], (*together)[i]) : HUGE_VAL;
    found_.batch_difference = std::max(found_.batch_difference, apart);
  }
  found_.abilities.batches = found_.batch_difference <= kSame;
  try_prompts(whole);
  return found_;
}

}  // namespace

Result<GraphTrial> try_graph(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens, MemoryLedger& ledger,
                             const std::string& model) {
  return Trial(session, graph, std::min(slot_tokens, kTrialSlotTokens)).run(ledger, model);
}

}  // namespace inferneo::onnx
