// Rotary frequencies of a RopeSpec, as every runner and converter needs them. Pure.
//
// Two schemes depend on the length of a sequence, which a paged, batched cache cannot follow after the fact; both are
// made functions of what is known when a key is written, so that chunking and batching change nothing:
// - dynamic: the token at position p is rotated as in a sequence of p + 1 tokens. Equal to growing a sequence token by
//   token; a prompt longer than the pretraining context differs from one rotated at once for its final length.
// - longrope: the short factors when the model is loaded for contexts of at most original_max_position, else the long
//   ones, for all positions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/decoder_spec.h"

namespace inferneo {

class RopeFrequencies {
 public:
  // max_model_len: the longest context that will be served.
  RopeFrequencies(const RopeSpec& spec, int32_t max_model_len);

  int32_t rotary_dim() const { return spec_.rotary_dim; }
  // Whether the frequencies are the same at all positions.
  bool is_static() const { return spec_.scaling != RopeScaling::dynamic; }
  const std::vector<float>& inverse_frequencies() const { return inverse_; }  // [rotary_dim / 2], of position 0

  // cos and sin, times the attention factor, of one position; [rotary_dim / 2] each.
  void fill(int32_t position, std::span<float> cosines, std::span<float> sines) const;

 private:
  RopeSpec spec_;
  std::vector<float> inverse_;
};

}  // namespace inferneo
