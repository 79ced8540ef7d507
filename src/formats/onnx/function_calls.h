// Which functions of an ONNX model call which, and how large the model is once they are written out: a few hundred
// bytes of functions that call each other twice would be more nodes than any memory holds. A part of graph_scan.h.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace inferneo::onnx {

class FunctionCalls {
 public:
  // How often each operator stands in a graph or a function, those of graphs within included.
  class Body {
   public:
    void add(const std::string& op) { ++ops_[op]; }

   private:
    friend class FunctionCalls;
    std::map<std::string, size_t> ops_;
  };

  bool define(std::string name, Body body);  // false: there is one of that name

  // malformed: a circle, or beyond OnnxLimits in depth or in nodes.
  Status check(const Body& main, std::string_view file) const;

 private:
  std::map<std::string, Body> functions_;
};

}  // namespace inferneo::onnx
