// The distribution of the next token over a row of processed logits, and the filters that narrow it.
//
// It starts dense (every token of the row) and turns into a list of candidates at the first filter that leaves few of
// them. No filter sorts the vocabulary: the largest values of blocks of 64 logits bound the k-th largest logit, and the
// nucleus is found by selection within what lies above such a bound.
//
// Ties: of equal logits the lower token id counts as better, in every filter. A filter always leaves one token.
// Ownership: refers to the row, which must not change meanwhile; scratch memory is kept for the next row. One thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "inferneo/sampling_params.h"

namespace inferneo {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Distribution {
 public:
  // softmax(logits / temperature); temperature > 0, `max` the largest logit, finite. block_max as RowMath::scan fills
  // it.
  void start(std::span<const float> logits, std::span<const float> block_max, float max, float temperature);

  // Locally typical sampling (Meister et al. 2023): the tokens whose information is nearest to the entropy, until their
  // probability reaches `mass`; those that tie with the last one stay.
  void keep_typical(float mass);
  void keep_top_k(int k);  // the k best
  // The best until their probability reaches p; the token that crosses the line stays. Like each filter here it looks
  // at what earlier ones left, normalised again.
  void keep_top_p(float p);
  void keep_min_p(float p);  // those at least p times as probable as the best that is left

  Token draw(double u);                          // u in [0, 1)
  double probability(Token token);               // after the filters
  void write_probabilities(std::span<float> p);  // [vocab]
  std::vector<Token> kept();                     // ascending

 private:
  struct Candidate {
    float logit;
    float weight;  // exp((logit - max) / temperature)
    Token token;
  };
  static bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
  void ensure_weights();
  void collect(float threshold);   // candidates: all with logit >= threshold
  float bound_of_best(int count);  // at least `count` logits are >= it
  void collect_mass(double mass);  // candidates: the best tokens, with at least this weight together
  double candidate_weight() const;
  double total();  // weight of all that is left
  float weight_of(float logit) const;

  std::span<const float> logits_;     // [vocab]
  std::span<const float> block_max_;  // [blocks]
  float max_ = 0.0F;
  float scale_ = 1.0F;
  bool has_weights_ = false;
  bool is_sparse_ = false;
  double dense_total_ = 0.0;
  std::vector<float> weights_;  // [vocab], once has_weights_
  std::vector<float> sums_;     // [blocks]
  std::vector<float> bounds_;   // [blocks] scratch
  std::vector<Candidate> candidates_;
};

struct DistributionFilter {
  std::string_view name;
  bool (*is_wanted)(const SamplingParams& params, int vocab_size);
  void (*apply)(Distribution& distribution, const SamplingParams& params);
};
// In the order in which they apply: typical_p, top_k, top_p, min_p.
std::span<const DistributionFilter> distribution_filters();

}  // namespace inferneo
