#include "models/onnx/onnx_forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "models/onnx/cache_copied.h"
#include "models/onnx/cache_none.h"
#include "models/onnx/cache_shared.h"
#include "tensor/dtype.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kMaxLogitsBytes = size_t{64} << 20;  // of one piece, where a graph can be given pieces
constexpr int32_t kMaxPiece = 1024;
constexpr int32_t kMaxSkippingPiece = 512;  // attention's scores take as much for each token as the text is long

// Rows of logits that one call can give.
int32_t max_logit_rows(const OnnxGraph& graph, const GraphAbilities& abilities, int32_t slot_tokens,
                       const ForwardLimits& limits) {
  const int32_t batch = std::min(OnnxForward::kMaxBatch, limits.max_num_seqs);
  if (graph.cache == CacheKind::none) return abilities.last_logits ? 1 : slot_tokens;
  if (abilities.last_logits) return batch;
  if (!abilities.chunks) return std::max(batch, std::min(limits.max_num_tokens, slot_tokens));
  const size_t row = static_cast<size_t>(graph.vocab_size) * sizeof(float);
  const auto fit = static_cast<int32_t>(std::clamp<size_t>(kMaxLogitsBytes / row, 1, kMaxPiece));
  return std::max(batch, std::min(fit, limits.max_num_tokens));
}

}  // namespace

std::unique_ptr<OnnxForward> OnnxForward::create(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens) {
  switch (graph.cache) {
    case CacheKind::shared:
      return std::make_unique<SharedCacheForward>(session, graph, slot_tokens);
    case CacheKind::copied:
      return std::make_unique<CopiedCacheForward>(session, graph, slot_tokens);
    case CacheKind::none:
      break;
  }
  return std::make_unique<NoCacheForward>(session, graph, slot_tokens);
}

size_t OnnxForward::most_workspace_bytes(const OnnxGraph& graph, int32_t slot_tokens, const ForwardLimits& limits) {
  const size_t elements = static_cast<size_t>(max_logit_rows(graph, {.chunks = true}, slot_tokens, limits)) *
                          static_cast<size_t>(graph.vocab_size);
  const size_t logits = elements * (graph.logits.type == ElementType::float16 ? 6 : 4);
  return logits + (graph.cache == CacheKind::copied ? CopiedCacheForward::staging(graph, slot_tokens, limits) : 0);
}

Status OnnxForward::bind(std::vector<std::byte*> planes, int32_t num_slots, const ForwardLimits& limits,
                         MemoryLedger& ledger, const std::string& model) {
  planes_ = std::move(planes);
  num_slots_ = num_slots;
  limits_ = limits;
  logit_rows_ = max_logit_rows(graph_, abilities_, slot_tokens_, limits);
  const size_t elements = static_cast<size_t>(logit_rows_) * static_cast<size_t>(graph_.vocab_size);
  const bool half = graph_.logits.type == ElementType::float16;
  ASSIGN_OR_RETURN(logits_, Buffer::allocate(ledger, model, MemoryPurpose::workspace, elements * (half ? 2 : 4)));
  if (half) {
    ASSIGN_OR_RETURN(logits_f32_, Buffer::allocate(ledger, model, MemoryPurpose::workspace, elements * 4));
  }
  if (const size_t bytes = staging_bytes(limits); bytes > 0) {
    ASSIGN_OR_RETURN(staging_memory_, Buffer::allocate(ledger, model, MemoryPurpose::workspace, bytes));
    staging_ = staging_memory_.data();
  }
  return bind_staging();
}

// How many of a row's tokens the next call takes.
int32_t OnnxForward::piece_tokens(const OnnxRow& row, int32_t done) const {
  const int32_t left = static_cast<int32_t>(row.tokens.size()) - done;
  int32_t piece = left;
  if (graph_.cache != CacheKind::none && !abilities_.chunks && row.position + done > 0) piece = 1;
  if (abilities_.last_logits) {
    // The first wanted token ends a piece, and every one after it is a piece of its own.
    piece = done >= row.first_wanted ? 1 : std::min(piece, row.first_wanted + 1 - done);
  } else if (abilities_.chunks && graph_.cache != CacheKind::none) {
    const int32_t unwanted = abilities_.skips_logits ? std::max(0, row.first_wanted - done) : 0;
    piece = std::min({piece, unwanted + logit_rows_, std::max(kMaxSkippingPiece, logit_rows_)});
  }
  return piece;
}

Status OnnxForward::run_alone(size_t index, const OnnxRow& row, const LogitsSink& sink) {
  const auto num_tokens = static_cast<int32_t>(row.tokens.size());
  for (int32_t done = 0; done < num_tokens;) {
    const int32_t piece = piece_tokens(row, done);
    Item item;
    item.row = index;
    item.first_token = done;
    item.tokens = row.tokens.subspan(static_cast<size_t>(done), static_cast<size_t>(piece));
    item.position = row.position + done;
    item.slot = row.slot;
    item.wanted = done + piece > row.first_wanted;
    RETURN_IF_ERROR(run_call({&item, 1}, {&row, 1}, sink));
    done += piece;
  }
  return ok_status();
}

// `rows`: of the items, in their order, fillers left out.
Status OnnxForward::run_call(std::span<const Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink) {
  const size_t num_tokens = items.front().tokens.size();
  first_logits_ = 0;
  if (abilities_.skips_logits) {
    first_logits_ = static_cast<int64_t>(num_tokens) - 1;
    for (size_t i = 0; num_tokens > 1 && i < items.size(); ++i) {  // no fillers among those of several tokens
      const int64_t wanted = std::max(0, rows[i].first_wanted - items[i].first_token);
      first_logits_ = std::min(first_logits_, wanted);
    }
  }
  const size_t rows_each = logit_rows(num_tokens);
  RETURN_IF_ERROR(compute(items));
  std::vector<LogitsPiece> pieces;
  size_t at = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    if (item.filler) continue;
    const OnnxRow& row = rows[at++];
    if (!item.wanted) continue;
    // The first row that there are logits of, and the first that is wanted, in tokens of this item.
    const size_t first_there = num_tokens - rows_each;
    const auto wanted = static_cast<size_t>(std::max(0, row.first_wanted - item.first_token));
    const size_t first = std::max(first_there, wanted);
    LogitsPiece piece;
    piece.row = item.row;
    piece.first_token = item.first_token + static_cast<int32_t>(first);
    piece.logits = logits_of(i * rows_each + first - first_there, num_tokens - first);
    pieces.push_back(piece);
  }
  return pieces.empty() ? ok_status() : sink(pieces);
}

std::span<float> OnnxForward::logits_of(size_t first_row, size_t num_rows) {
  const auto vocab = static_cast<size_t>(graph_.vocab_size);
  const size_t first = first_row * vocab;
  const size_t count = num_rows * vocab;
  if (graph_.logits.type != ElementType::float16) return {logits_.as<float>() + first, count};
  float* const wide = logits_f32_.as<float>() + first;
  const uint16_t* const half = logits_.as<uint16_t>() + first;
  for (size_t i = 0; i < count; ++i) wide[i] = f16_to_f32(half[i]);
  return {wide, count};
}

bool OnnxForward::joins_prompts(const OnnxRow& row) const {
  return abilities_.prompts && row.position == 0 && row.tokens.size() * 2 <= static_cast<size_t>(kMaxSkippingPiece);
}

// One call of items of as many tokens each; `rows`: all of run().
Status OnnxForward::run_items(std::span<const Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink) {
  std::vector<OnnxRow> of_items;
  for (const Item& item : items) {
    if (!item.filler) of_items.push_back(rows[item.row]);
  }
  return run_call(items, of_items, sink);
}

// Prompts of one length, at least two tokens: those in slots that follow each other go together, as many as one long
// piece has tokens.
Status OnnxForward::run_prompts(std::vector<Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink) {
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.slot < b.slot; });
  const auto length = static_cast<int32_t>(items.front().tokens.size());
  for (size_t begin = 0; begin < items.size();) {
    int32_t most_wanted = 1;
    size_t end = begin;
    while (end < items.size() && (end == begin || items[end].slot == items[end - 1].slot + 1)) {
      const auto count = static_cast<int32_t>(end - begin + 1);
      most_wanted = std::max(most_wanted, length - rows[items[end].row].first_wanted);
      if (count > kMaxBatch || count * length > kMaxSkippingPiece || count * most_wanted > logit_rows_) break;
      ++end;
    }
    if (end <= begin + 1) {
      RETURN_IF_ERROR(run_alone(items[begin].row, rows[items[begin].row], sink));
      ++begin;
      continue;
    }
    RETURN_IF_ERROR(run_items(std::span(items).subspan(begin, end - begin), rows, sink));
    begin = end;
  }
  return ok_status();
}

Status OnnxForward::run(std::span<const OnnxRow> rows, const LogitsSink& sink) {
  std::map<size_t, std::vector<Item>> together;  // by how many tokens they have
  for (size_t i = 0; i < rows.size(); ++i) {
    const OnnxRow& row = rows[i];
    if (!abilities_.batches || (row.tokens.size() != 1 && !joins_prompts(row))) {
      RETURN_IF_ERROR(run_alone(i, row, sink));
      continue;
    }
    Item item;
    item.row = i;
    item.tokens = row.tokens;
    item.position = row.position;
    item.slot = row.slot;
    item.wanted = row.first_wanted < static_cast<int32_t>(row.tokens.size());
    together[row.tokens.size()].push_back(item);
  }
  for (auto& [length, items] : together) {
    if (length > 1) {
      RETURN_IF_ERROR(run_prompts(std::move(items), rows, sink));
      continue;
    }
    for (const std::vector<Item>& batch : batches(std::move(items))) RETURN_IF_ERROR(run_items(batch, rows, sink));
  }
  return ok_status();
}

void* OnnxForward::fill(ElementType type, size_t count, std::vector<int64_t>& wide, std::vector<int32_t>& narrow) {
  if (type == ElementType::int64) return wide.data();
  narrow.assign(wide.begin(), wide.begin() + static_cast<std::ptrdiff_t>(count));
  return narrow.data();
}

void OnnxForward::add_text_inputs(std::span<const Item> items, int32_t width, std::span<const int32_t> left,
                                  std::vector<OnnxTensor>& inputs) {
  const size_t num_tokens = items.front().tokens.size();
  ids_.clear();
  positions_.clear();
  mask_.assign(items.size() * static_cast<size_t>(width), 0);
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    ids_.insert(ids_.end(), item.tokens.begin(), item.tokens.end());
    for (size_t t = 0; t < num_tokens; ++t) positions_.push_back(item.position + static_cast<int64_t>(t));
    const auto begin = mask_.begin() + static_cast<std::ptrdiff_t>(i) * width + (left.empty() ? 0 : left[i]);
    std::fill_n(begin, item.position + static_cast<int64_t>(num_tokens), 1);
  }
  const auto add = [&](const OnnxPortRef& port, std::vector<int64_t>& wide, std::vector<int32_t>& narrow,
                       size_t columns) {
    if (!port.present()) return;
    OnnxTensor tensor;
    tensor.name = port.name.c_str();
    tensor.type = port.type;
    tensor.shape = {static_cast<int64_t>(items.size()), static_cast<int64_t>(columns)};
    tensor.rank = 2;
    tensor.data = fill(port.type, wide.size(), wide, narrow);
    tensor.bytes = wide.size() * (port.type == ElementType::int64 ? sizeof(int64_t) : sizeof(int32_t));
    inputs.push_back(tensor);
  };
  add(graph_.input_ids, ids_, ids32_, num_tokens);
  add(graph_.attention_mask, mask_, mask32_, static_cast<size_t>(width));
  add(graph_.position_ids, positions_, positions32_, num_tokens);
  if (!abilities_.skips_logits) return;
  OnnxTensor first;
  first.name = graph_.first_logits.name.c_str();
  first.type = ElementType::int64;
  first.shape = {1};
  first.rank = 1;
  first.data = &first_logits_;
  first.bytes = sizeof(first_logits_);
  inputs.push_back(first);
}

OnnxTensor OnnxForward::logits_output(size_t num_items, size_t num_tokens) {
  const size_t rows_each = logit_rows(num_tokens);
  OnnxTensor tensor;
  tensor.name = graph_.logits.name.c_str();
  tensor.type = graph_.logits.type;
  tensor.shape = {static_cast<int64_t>(num_items), static_cast<int64_t>(rows_each), graph_.vocab_size};
  tensor.rank = 3;
  tensor.data = logits_.data();
  tensor.bytes = num_items * rows_each * static_cast<size_t>(graph_.vocab_size) *
                 static_cast<size_t>(element_bits(graph_.logits.type) / 8);
  INFERNEO_CHECK(tensor.bytes <= logits_.size(), "more logits than were planned for");
  return tensor;
}

OnnxTensor OnnxForward::cache_tensor(const std::string& name, size_t batch, int32_t length, void* data) const {
  OnnxTensor tensor;
  tensor.name = name.c_str();
  tensor.type = graph_.cache_type;
  tensor.shape = {static_cast<int64_t>(batch), graph_.kv_heads, length, graph_.head_dim};
  tensor.rank = 4;
  tensor.data = data;
  tensor.bytes = batch * static_cast<size_t>(length) * graph_.plane_bytes_per_token();
  return tensor;
}

}  // namespace inferneo::onnx
