// Builds an ONNX graph node by node: names, constants, scopes. Nodes are added in the order in which they are computed.
// Plain data, one thread.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/onnx/onnx_proto.h"

namespace inferneo {

using Value = std::string;  // the name of a tensor of the graph; empty: an optional one that is not there
using Attributes = std::vector<OnnxAttribute>;

inline constexpr std::string_view kMicrosoftDomain = "com.microsoft";

class GraphBuilder {
 public:
  explicit GraphBuilder(OnnxGraph& graph) : graph_(graph) {}

  // What the nodes that follow belong to ("layers.3.attention"): the front part of their names.
  void scope(std::string name) { scope_ = std::move(name); }

  Value node(std::string_view op, std::vector<Value> inputs, Attributes attributes = {}, std::string_view domain = {});
  // With several outputs: their names; an empty one in `wanted` is not asked for.
  std::vector<Value> nodes(std::string_view op, std::vector<Value> inputs, std::vector<std::string_view> wanted,
                           Attributes attributes = {}, std::string_view domain = {});
  // The last step of something that has a name of its own (an output of the graph).
  void named(const Value& name, std::string_view op, std::vector<Value> inputs, Attributes attributes = {},
             std::string_view domain = {});

  // Constants; equal ones are one tensor.
  Value ints(std::vector<int64_t> values);  // [n]
  Value integer(int64_t value);             // a scalar
  Value number(float value, OnnxType type = OnnxType::f32);

  Value cast(const Value& x, OnnxType to) { return node("Cast", {x}, {{"to", static_cast<int64_t>(to)}}); }
  Value reshape(const Value& x, std::vector<int64_t> shape) { return node("Reshape", {x, ints(std::move(shape))}); }
  Value transpose(const Value& x, std::vector<int64_t> order) {
    return node("Transpose", {x}, {{"perm", std::move(order)}});
  }
  Value unsqueeze(const Value& x, std::vector<int64_t> axes) { return node("Unsqueeze", {x, ints(std::move(axes))}); }

  void input(std::string name, OnnxType type, std::vector<OnnxDim> dims);
  // i64 [1]; it is `value` unless it is given.
  void optional_input(const std::string& name, int64_t value);
  void output(std::string name, OnnxType type, std::vector<OnnxDim> dims);
  OnnxGraph& graph() { return graph_; }

 private:
  std::string unique(std::string_view op);
  Value constant(const std::string& name, OnnxType type, std::vector<int64_t> dims, std::string raw);

  OnnxGraph& graph_;
  std::string scope_;
  std::map<std::string, int> used_;  // names of nodes -> how often
  std::map<std::string, bool> constants_;
};

}  // namespace inferneo
