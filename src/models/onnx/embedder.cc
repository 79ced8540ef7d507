#include "models/onnx/embedder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/dtype.h"

namespace inferneo::onnx {

void Embedder::fill(std::span<const std::span<const Token>> texts, size_t length) {
  const size_t count = texts.size() * length;
  ids_.assign(count, files_.pad_token);
  mask_.assign(count, 0);
  types_.assign(count, 0);
  positions_.assign(count, 0);
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto at = static_cast<std::ptrdiff_t>(i * length);
    const auto tokens = static_cast<std::ptrdiff_t>(texts[i].size());
    std::copy(texts[i].begin(), texts[i].end(), ids_.begin() + at);
    std::fill_n(mask_.begin() + at, tokens, 1);
    for (std::ptrdiff_t t = 0; t < tokens; ++t) positions_[static_cast<size_t>(at + t)] = t;
  }
}

void Embedder::add_input(const OnnxPortRef& port, const std::vector<int64_t>& values, std::vector<int32_t>& narrow,
                         size_t rows, std::vector<OnnxTensor>& inputs) const {
  if (!port.present()) return;
  OnnxTensor tensor;
  tensor.name = port.name.c_str();
  tensor.type = port.type;
  tensor.shape = {static_cast<int64_t>(rows), static_cast<int64_t>(values.size() / rows)};
  tensor.rank = 2;
  if (port.type == ElementType::int64) {
    tensor.data = const_cast<int64_t*>(values.data());  // the library reads it
    tensor.bytes = values.size() * sizeof(int64_t);
  } else {
    narrow.assign(values.begin(), values.end());
    tensor.data = narrow.data();
    tensor.bytes = narrow.size() * sizeof(int32_t);
  }
  inputs.push_back(tensor);
}

Status Embedder::check_shape(std::span<const int64_t> shape, size_t rows, size_t length) {
  std::vector<int64_t> expected = {static_cast<int64_t>(rows)};
  if (!graph_.pooled) expected.push_back(static_cast<int64_t>(length));
  const bool fits = shape.size() == expected.size() + 1 && std::equal(expected.begin(), expected.end(), shape.begin());
  if (fits && graph_.dimensions == 0 && shape.back() > 0 && shape.back() <= INT32_MAX) {
    graph_.dimensions = static_cast<int32_t>(shape.back());
  }
  if (fits && graph_.dimensions > 0 && shape.back() == graph_.dimensions) return ok_status();
  expected.push_back(graph_.dimensions > 0 ? graph_.dimensions : -1);
  return make_error(ErrorCode::malformed, fmt::format("output '{}' came as {}, where {} was expected",
                                                      graph_.output.name, shape_text(shape), shape_text(expected)));
}

// One text's rows, those of its `tokens` tokens first.
void Embedder::pool(std::span<const float> rows, size_t tokens, std::span<float> vector) const {
  const size_t width = vector.size();
  if (graph_.pooled || files_.pooling != Pooling::mean) {
    const size_t row = graph_.pooled || files_.pooling == Pooling::cls ? 0 : tokens - 1;
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(row * width), width, vector.begin());
    return;
  }
  std::vector<double> sums(width, 0.0);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t d = 0; d < width; ++d) sums[d] += static_cast<double>(rows[t * width + d]);
  }
  for (size_t d = 0; d < width; ++d) vector[d] = static_cast<float>(sums[d] / static_cast<double>(tokens));
}

Status Embedder::scale(std::span<float> vector) const {
  double squares = 0.0;
  for (const float value : vector) squares += static_cast<double>(value) * static_cast<double>(value);
  if (!std::isfinite(squares)) return make_error(ErrorCode::numeric, "the graph's output holds what is no number");
  if (!files_.normalize || squares == 0.0) return ok_status();
  const double length = std::sqrt(squares);
  for (float& value : vector) value = static_cast<float>(static_cast<double>(value) / length);
  return ok_status();
}

Result<std::vector<float>> Embedder::run(std::span<const std::span<const Token>> texts) {
  size_t length = 0;
  for (const std::span<const Token> text : texts) length = std::max(length, text.size());
  fill(texts, length);
  std::vector<OnnxTensor> inputs;
  add_input(graph_.input_ids, ids_, ids32_, texts.size(), inputs);
  add_input(graph_.attention_mask, mask_, mask32_, texts.size(), inputs);
  add_input(graph_.token_type_ids, types_, types32_, texts.size(), inputs);
  add_input(graph_.position_ids, positions_, positions32_, texts.size(), inputs);
  OnnxTensor wanted;
  wanted.name = graph_.output.name.c_str();
  ASSIGN_OR_RETURN(const std::vector<OnnxOutput> made, session_.run(inputs, {&wanted, 1}));
  if (made.size() != 1) return make_error(ErrorCode::malformed, "the graph gave no output");
  ASSIGN_OR_RETURN(const std::vector<int64_t> shape, made[0].shape());
  RETURN_IF_ERROR(check_shape(shape, texts.size(), length));
  ASSIGN_OR_RETURN(const ElementType type, made[0].type());
  ASSIGN_OR_RETURN(const std::byte* const data, made[0].data());
  if (type != graph_.output.type) {
    return make_error(ErrorCode::malformed, fmt::format("output '{}' came in another type", graph_.output.name));
  }
  const auto width = static_cast<size_t>(graph_.dimensions);
  const size_t rows_each = graph_.pooled ? 1 : length;
  std::vector<float> wide;
  if (type == ElementType::float16) {
    wide.resize(texts.size() * rows_each * width);
    const auto* const half = reinterpret_cast<const uint16_t*>(data);
    for (size_t i = 0; i < wide.size(); ++i) wide[i] = f16_to_f32(half[i]);
  }
  const float* const rows = wide.empty() ? reinterpret_cast<const float*>(data) : wide.data();
  std::vector<float> vectors(texts.size() * width);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::span<float> vector(vectors.data() + i * width, width);
    pool({rows + i * rows_each * width, rows_each * width}, texts[i].size(), vector);
    RETURN_IF_ERROR(scale(vector));
  }
  return vectors;
}

Result<EmbeddingTrial> try_embedding(Embedder& embedder, const EmbeddingFiles& files) {
  constexpr size_t kTexts = 3;
  const auto longest = static_cast<size_t>(std::min(files.max_tokens, 6));
  // Of a vocabulary that nobody states, ids that every one has.
  const int32_t vocabulary = files.vocab_size > 0 ? files.vocab_size : 8;
  std::vector<std::vector<Token>> tokens;
  for (const size_t length : {longest, (longest + 1) / 2, size_t{1}}) {
    std::vector<Token>& text = tokens.emplace_back();
    for (size_t t = 0; t < length; ++t) {
      text.push_back(static_cast<Token>((static_cast<int64_t>(tokens.size() * 31 + t) * 7919 + 13) % vocabulary));
    }
  }
  const std::vector<std::span<const Token>> texts(tokens.begin(), tokens.end());
  std::vector<float> alone;
  for (size_t i = 0; i < kTexts; ++i) {
    ASSIGN_OR_RETURN(const std::vector<float> vector, embedder.run(std::span(texts).subspan(i, 1)));
    alone.insert(alone.end(), vector.begin(), vector.end());
  }
  const Result<std::vector<float>> together = embedder.run(texts);
  EmbeddingTrial trial;
  if (!together.ok()) {
    if (together.error().code != ErrorCode::malformed) return together.error();
    trial.batch_difference = HUGE_VAL;
    return trial;
  }
  double largest = 0.0;
  for (const float value : alone) largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (size_t i = 0; i < alone.size(); ++i) {
    const double apart = std::abs(static_cast<double>(alone[i]) - static_cast<double>((*together)[i]));
    trial.batch_difference = std::max(trial.batch_difference, apart / std::max(largest, 1e-6));
  }
  return trial;
}

}  // namespace inferneo::onnx
