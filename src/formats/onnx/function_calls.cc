#include "formats/onnx/function_calls.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/onnx/graph_scan.h"

namespace inferneo::onnx {
namespace {

struct Expanded {
  size_t nodes = 0;
  size_t depth = 0;  // calls within calls
};

}  // namespace

bool FunctionCalls::define(std::string name, Body body) {
  return functions_.emplace(std::move(name), std::move(body)).second;
}

Status FunctionCalls::check(const Body& main, std::string_view file) const {
  const auto fail = [&](std::string_view what) {
    return make_error(ErrorCode::malformed, fmt::format("{}: {}", file, what));
  };
  // In rounds, callees before callers: what is left when a round finds nothing is a circle.
  std::map<std::string_view, Expanded> done;
  const auto expand = [&](const Body& body, Expanded& expanded) {
    expanded = {};
    for (const auto& [op, count] : body.ops_) {
      Expanded callee{1, 0};
      if (functions_.contains(op)) {
        const auto known = done.find(op);
        if (known == done.end()) return false;
        callee = {known->second.nodes, known->second.depth + 1};
      }
      const size_t limit = OnnxLimits::kMaxNodes + 1;  // sums stop here
      expanded.nodes = std::min(limit, expanded.nodes + std::min(limit, callee.nodes) * std::min(limit, count));
      expanded.depth = std::max(expanded.depth, callee.depth);
    }
    return true;
  };
  for (size_t before = SIZE_MAX; before != done.size();) {
    before = done.size();
    for (const auto& [name, function] : functions_) {
      Expanded expanded;
      if (done.contains(name) || !expand(function, expanded)) continue;
      if (expanded.depth >= OnnxLimits::kMaxFunctionDepth) {
        return fail(fmt::format("functions within functions, more than {} deep", OnnxLimits::kMaxFunctionDepth));
      }
      done.emplace(name, expanded);
    }
  }
  if (done.size() != functions_.size()) return fail("its functions call each other in a circle");
  Expanded expanded;
  (void)expand(main, expanded);
  if (expanded.nodes > OnnxLimits::kMaxNodes) {
    return fail(fmt::format("more than {} nodes once its functions are written out", OnnxLimits::kMaxNodes));
  }
  return ok_status();
}

}  // namespace inferneo::onnx
