// From tokens to logits through an ONNX graph: one class per way in which a graph keeps its cache.
//
// What all have in common is here: rows of several tokens go through the graph alone, in pieces that bound the logits,
// or, short prompts of one length, several at once; rows of one token go together, in batches as each kind can form
// them. What a graph can do beyond the simplest use
// (GraphAbilities) is found out by trying when the model is loaded, see graph_trial.h.
//
// Slots: block s of a plane is the whole cache of one sequence, [heads, slot_tokens, head_dim], so slots that follow
// each other are a batch, [slots, heads, slot_tokens, head_dim]. Planes: for each layer its keys and its values;
// without a cache one plane, which keeps the tokens themselves, int32 [slot_tokens]. One thread. Errors: those of
// OnnxSession; out_of_memory from bind().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "models/model_runner.h"
#include "models/onnx/onnx_graph.h"
#include "models/onnx/onnx_session.h"
#include "tensor/memory.h"

namespace inferneo::onnx {

struct OnnxRow {
  std::span<const Token> tokens;
  int32_t position = 0;  // of tokens[0]
  int32_t slot = 0;
  int32_t first_wanted = 0;  // logits of the tokens from this one on are handed over; tokens.size(): none
};

// Logits of consecutive tokens of one row; scratch of whoever gets them.
struct LogitsPiece {
  size_t row = 0;           // in run()'s rows
  int32_t first_token = 0;  // of the row's
  std::span<float> logits;  // [tokens, vocab]
};
using LogitsSink = FunctionRef<Status(std::span<const LogitsPiece> pieces)>;

// Found by trial; the defaults are what every graph can do.
struct GraphAbilities {
  bool chunks = false;        // several tokens at once behind a cache that is not empty
  bool batches = false;       // several sequences in one call
  bool last_logits = false;   // logits come of the last token alone
  bool skips_logits = false;  // of tokens that nobody wants logits of none are computed (OnnxGraph::first_logits)
  bool prompts = false;       // several prompts of one length, from their beginning, in one call
};

struct ForwardLimits {
  int32_t max_num_seqs = 1;
  int32_t max_num_tokens = 1;  // of one row
  // Positions that may be computed. Slots are rounded up, and the graph's tables may end where the context does.
  int32_t max_length = INT32_MAX;
};

class OnnxForward {
 public:
  static constexpr int32_t kMaxBatch = 64;  // rows of one call

  static std::unique_ptr<OnnxForward> create(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens);
  virtual ~OnnxForward() = default;
  OnnxForward(const OnnxForward&) = delete;
  OnnxForward& operator=(const OnnxForward&) = delete;

  // Planes of `num_slots` slots each. Allocates and books the logits' and the staging memory.
  Status bind(std::vector<std::byte*> planes, int32_t num_slots, const ForwardLimits& limits, MemoryLedger& ledger,
              const std::string& model);
  // The sink is called for each call of the graph that has wanted rows, on this thread.
  Status run(std::span<const OnnxRow> rows, const LogitsSink& sink);

  void set_abilities(const GraphAbilities& abilities) { abilities_ = abilities; }
  const GraphAbilities& abilities() const { return abilities_; }
  // The most that bind() books for such a graph, whatever it turns out to be able to do.
  static size_t most_workspace_bytes(const OnnxGraph& graph, int32_t slot_tokens, const ForwardLimits& limits);

 protected:
  OnnxForward(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens)
      : session_(session), graph_(graph), slot_tokens_(slot_tokens) {}

  // A row's share of one call: all items of a call have as many tokens.
  struct Item {
    size_t row = 0;
    int32_t first_token = 0;
    std::span<const Token> tokens;
    int32_t position = 0;
    int32_t slot = 0;
    bool wanted = false;
    bool filler = false;  // a slot between others, computed and thrown away
  };

  // Splits items of one token each into calls.
  virtual std::vector<std::vector<Item>> batches(std::vector<Item> items) = 0;
  // Runs one call; logits go to logits_data(), [items, tokens or 1, vocab].
  virtual Status compute(std::span<const Item> items) = 0;
  virtual size_t staging_bytes(const ForwardLimits&) const { return 0; }
  virtual Status bind_staging() { return ok_status(); }

  // input_ids, attention_mask, position_ids and first_logits. `width`: of the mask; ones begin at `left[i]`, where
  // `left` is given.
  void add_text_inputs(std::span<const Item> items, int32_t width, std::span<const int32_t> left,
                       std::vector<OnnxTensor>& inputs);
  OnnxTensor logits_output(size_t num_items, size_t num_tokens);
  OnnxTensor cache_tensor(const std::string& name, size_t batch, int32_t length, void* data) const;
  size_t slot_bytes() const { return static_cast<size_t>(slot_tokens_) * graph_.plane_bytes_per_token(); }

  OnnxSession& session_;
  const OnnxGraph graph_;
  const int32_t slot_tokens_;
  GraphAbilities abilities_;
  std::vector<std::byte*> planes_;
  int32_t num_slots_ = 0;
  ForwardLimits limits_;
  std::byte* staging_ = nullptr;
  std::vector<OnnxTensor> inputs_;
  std::vector<OnnxTensor> outputs_;

 private:
  int32_t piece_tokens(const OnnxRow& row, int32_t done) const;
  // Of each item of the call under way.
  size_t logit_rows(size_t num_tokens) const {
    return abilities_.last_logits ? 1 : num_tokens - static_cast<size_t>(first_logits_);
  }
  Status run_alone(size_t index, const OnnxRow& row, const LogitsSink& sink);
  bool joins_prompts(const OnnxRow& row) const;
  Status run_prompts(std::vector<Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink);
  Status run_items(std::span<const Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink);
  Status run_call(std::span<const Item> items, std::span<const OnnxRow> rows, const LogitsSink& sink);
  std::span<float> logits_of(size_t first_row, size_t num_rows);
  void* fill(ElementType type, size_t count, std::vector<int64_t>& wide, std::vector<int32_t>& narrow);

  int32_t logit_rows_ = 0;
  int64_t first_logits_ = 0;  // of the call under way: of the tokens before this one there are none
  Buffer logits_;
  Buffer logits_f32_;  // of a graph whose logits are f16
  Buffer staging_memory_;
  std::vector<int64_t> ids_, mask_, positions_;
  std::vector<int32_t> ids32_, mask32_, positions32_;
};

}  // namespace inferneo::onnx
