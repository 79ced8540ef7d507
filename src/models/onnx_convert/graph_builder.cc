#include "models/onnx_convert/graph_builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>

#include "tensor/dtype.h"

namespace inferneo {
namespace {

void append_little_endian(std::string& raw, uint64_t bits, int bytes) {
  for (int i = 0; i < bytes; ++i) raw.push_back(static_cast<char>(bits >> (8 * i) & 0xffU));
}

}  // namespace

std::string GraphBuilder::unique(std::string_view op) {
  std::string base = scope_.empty() ? std::string(op) : fmt::format("{}.{}", scope_, op);
  const int count = used_[base]++;
  return count == 0 ? base : fmt::format("{}.{}", base, count);
}

std::vector<Value> GraphBuilder::nodes(std::string_view op, std::vector<Value> inputs,
                                       std::vector<std::string_view> wanted, Attributes attributes,
                                       std::string_view domain) {
  OnnxNode node;
  node.op = op;
  node.domain = domain;
  node.name = unique(op);
  node.inputs = std::move(inputs);
  while (!node.inputs.empty() && node.inputs.back().empty()) node.inputs.pop_back();
  for (const std::string_view name : wanted) {
    // An output of the graph keeps its name; the others are called after their node.
    const bool whole = name.starts_with("present.");
    node.outputs.push_back(name.empty() ? "" : whole ? std::string(name) : fmt::format("{}:{}", node.name, name));
  }
  node.attributes = std::move(attributes);
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().outputs;
}

Value GraphBuilder::node(std::string_view op, std::vector<Value> inputs, Attributes attributes,
                         std::string_view domain) {
  return nodes(op, std::move(inputs), {"0"}, std::move(attributes), domain).front();
}

void GraphBuilder::named(const Value& name, std::string_view op, std::vector<Value> inputs, Attributes attributes,
                         std::string_view domain) {
  nodes(op, std::move(inputs), {"0"}, std::move(attributes), domain);
  graph_.nodes.back().outputs = {name};
}

Value GraphBuilder::constant(const std::string& name, OnnxType type, std::vector<int64_t> dims, std::string raw) {
  if (!constants_.emplace(name, true).second) return name;
  OnnxTensor tensor;
  tensor.name = name;
  tensor.type = type;
  tensor.dims = std::move(dims);
  tensor.raw = std::move(raw);
  graph_.initializers.push_back(std::move(tensor));
  return name;
}

Value GraphBuilder::ints(std::vector<int64_t> values) {
  std::string raw;
  for (const int64_t value : values) append_little_endian(raw, static_cast<uint64_t>(value), 8);
  return constant(fmt::format("ints.{}", fmt::join(values, "_")), OnnxType::i64, {static_cast<int64_t>(values.size())},
                  std::move(raw));
}

Value GraphBuilder::integer(int64_t value) {
  std::string raw;
  append_little_endian(raw, static_cast<uint64_t>(value), 8);
  return constant(fmt::format("integer.{}", value), OnnxType::i64, {}, std::move(raw));
}

Value GraphBuilder::number(float value, OnnxType type) {
  std::string raw;
  const bool half = type == OnnxType::f16;
  if (half) {
    append_little_endian(raw, f32_to_f16(value), 2);
  } else {
    append_little_endian(raw, std::bit_cast<uint32_t>(value), 4);
  }
  return constant(fmt::format("{}.{}", half ? "half" : "number", value), type, {}, std::move(raw));
}

void GraphBuilder::input(std::string name, OnnxType type, std::vector<OnnxDim> dims) {
  graph_.inputs.push_back({std::move(name), type, std::move(dims)});
}

void GraphBuilder::optional_input(const std::string& name, int64_t value) {
  input(name, OnnxType::i64, {int64_t{1}});
  std::string raw;
  append_little_endian(raw, static_cast<uint64_t>(value), 8);
  constant(name, OnnxType::i64, {1}, std::move(raw));
}

void GraphBuilder::output(std::string name, OnnxType type, std::vector<OnnxDim> dims) {
  graph_.outputs.push_back({std::move(name), type, std::move(dims)});
}

}  // namespace inferneo
