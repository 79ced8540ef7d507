// A small paged engine for tests of a runner: blocks handed out in a shuffled order, memory poisoned with NaN, blocks
// that have left a window taken back and poisoned again. What a runner reads but should not shows up as NaN.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "models/model_runner.h"

namespace inferneo {

// Where the blocks lie. On the host, unless a test has another place.
class HarnessMemory {
 public:
  virtual ~HarnessMemory() = default;
  // Aligned to 64 bytes; lives as long as this.
  virtual std::byte* allocate(size_t bytes) {
    memory_.push_back(std::make_unique<std::vector<std::byte>>(bytes + 64));
    std::byte* base = memory_.back()->data();
    return base + (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
  }
  virtual void fill(std::byte* at, size_t bytes) { std::memset(at, 0xff, bytes); }  // NaN in every element type

 private:
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
};

class PagedHarness {
 public:
  PagedHarness(ModelRunner& runner, int32_t blocks_per_group, uint32_t seed = 1,
               std::unique_ptr<HarnessMemory> memory = std::make_unique<HarnessMemory>())
      : runner_(runner), random_(seed), memory_(std::move(memory)) {
    KvBinding binding;
    for (const KvGroupSpec& group : runner.kv_spec().groups) {
      const size_t bytes = group.planes[0].bytes_per_block;
      std::byte* base = memory_->allocate(bytes * static_cast<size_t>(blocks_per_group));
      binding.bases.push_back({base});
      binding.capacity_blocks.push_back(blocks_per_group);
      free_.emplace_back();
      for (int32_t b = 0; b < blocks_per_group; ++b) {
        free_.back().push_back(b);
        poison(base, bytes, b);
      }
    }
    binding_ = binding;
  }

  Status bind(int32_t max_seqs, int32_t max_tokens) { return runner_.bind(binding_, max_seqs, max_tokens); }

  struct Sequence {
    std::vector<Token> tokens;  // known: prompt and what was generated
    int32_t computed = 0;
    std::vector<std::vector<int32_t>> tables;  // [groups][blocks]
  };

  // One sequence's share of a step: its next `count` tokens.
  struct Part {
    Sequence* sequence = nullptr;
    int32_t count = 0;
    Want want = Want::nothing;
    std::span<const Token> prompt_targets = {};
    int32_t top = 0;
    int32_t num_draft = 0;
    const SamplingParams* params = nullptr;
  };

  // Runs a step and advances the sequences.
  Result<StepResult> step(const std::vector<Part>& parts) {
    static const SamplingParams kGreedy = [] {
      SamplingParams params;
      params.temperature = 0.0F;
      return params;
    }();
    StepBatch batch;
    std::vector<std::vector<std::span<const int32_t>>> tables(parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      Sequence& sequence = *parts[i].sequence;
      grow(sequence, sequence.computed + parts[i].count);
      for (const auto& table : sequence.tables) tables[i].emplace_back(table);
      SequenceStep step;
      step.sequence_id = i + 1;
      step.tokens = std::span(sequence.tokens)
                        .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(parts[i].count));
      step.position = sequence.computed;
      step.block_tables = tables[i];
      step.want = parts[i].want;
      step.num_draft = parts[i].num_draft;
      step.sampling.params = parts[i].params != nullptr ? parts[i].params : &kGreedy;
      step.prompt_targets = parts[i].prompt_targets;
      step.prompt_top_logprobs = parts[i].top;
      batch.sequences.push_back(step);
    }
    ASSIGN_OR_RETURN(const Ticket ticket, runner_.submit(batch));
    auto result = runner_.collect(ticket);
    for (const Part& part : parts) {
      part.sequence->computed += part.count;
      leave_window(*part.sequence);
    }
    return result;
  }

  // Takes all blocks back, as preemption by recompute does.
  void release(Sequence& sequence) {
    for (size_t g = 0; g < sequence.tables.size(); ++g) {
      for (const int32_t block : sequence.tables[g]) give_back(g, block);
    }
    sequence.tables.clear();
    sequence.computed = 0;
  }

  std::byte* block(size_t group, int32_t id) {
    return binding_.bases[group][0] +
           static_cast<size_t>(id) * runner_.kv_spec().groups[group].planes[0].bytes_per_block;
  }

 private:
  void poison(std::byte* base, size_t bytes, int32_t block) {
    memory_->fill(base + bytes * static_cast<size_t>(block), bytes);
  }
  void give_back(size_t group, int32_t block) {
    if (block < 0) return;
    poison(binding_.bases[group][0], runner_.kv_spec().groups[group].planes[0].bytes_per_block, block);
    free_[group].push_back(block);
  }
  void grow(Sequence& sequence, int32_t tokens) {
    sequence.tables.resize(free_.size());
    for (size_t g = 0; g < free_.size(); ++g) {
      const int32_t size = runner_.kv_spec().groups[g].block_size;
      while (static_cast<int32_t>(sequence.tables[g].size()) * size < tokens) {
        std::uniform_int_distribution<size_t> pick(0, free_[g].size() - 1);
        std::swap(free_[g][pick(random_)], free_[g].back());
        sequence.tables[g].push_back(free_[g].back());
        free_[g].pop_back();
      }
    }
  }
  void leave_window(Sequence& sequence) {
    for (size_t g = 0; g < free_.size(); ++g) {
      const KvGroupSpec& group = runner_.kv_spec().groups[g];
      if (group.window == 0) continue;
      // The next token, at position `computed`, sees the window's tokens that end with itself.
      const int32_t first_seen = std::max(0, sequence.computed - group.window + 1);
      for (int32_t b = 0; b < first_seen / group.block_size; ++b) {
        int32_t& block = sequence.tables[g][static_cast<size_t>(b)];
        give_back(g, block);
        block = -1;
      }
    }
  }

  ModelRunner& runner_;
  std::mt19937 random_;
  KvBinding binding_;
  std::unique_ptr<HarnessMemory> memory_;
  std::vector<std::vector<int32_t>> free_;
};

}  // namespace inferneo
