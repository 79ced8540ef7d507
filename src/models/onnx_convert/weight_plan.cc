#include "models/onnx_convert/weight_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/result.h"

namespace inferneo {

WeightPlan::WeightPlan(const DecoderSpec& spec, OnnxGraph& graph, int32_t max_positions)
    : spec_(spec), graph_(graph), max_positions_(max_positions) {
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    const TensorBinding& binding = spec.tensors[i];
    bindings_[{binding.layer, binding.role, binding.expert}] = i;
  }
}

OnnxTensor::Range WeightPlan::tensor(const std::string& name, OnnxType type, std::vector<int64_t> dims) {
  OnnxTensor added;
  added.name = name;
  added.type = type;
  added.dims = std::move(dims);
  const uint64_t bytes = onnx_bytes(type, added.num_elements());
  const OnnxTensor::Range range{file_.add(bytes), bytes};
  added.external = range;
  graph_.initializers.push_back(std::move(added));
  return range;
}

WeightJob WeightPlan::job(WeightJob::Form form, const std::vector<WeightKey>& keys, OnnxType type) const {
  WeightJob made;
  made.form = form;
  made.type = type;
  for (const WeightKey& key : keys) {
    const auto found = bindings_.find(key);
    INFERNEO_CHECK(found != bindings_.end(), fmt::format("no {} of layer {}", tensor_role_name(key.role), key.layer));
    made.pieces.push_back(found->second);
    made.rows += spec_.tensors[found->second].rows;
    made.cols = spec_.tensors[found->second].cols;
  }
  return made;
}

int64_t WeightPlan::outputs(const std::vector<WeightKey>& keys) const {
  int64_t rows = 0;
  for (const WeightKey& key : keys) rows += spec_.tensors[bindings_.at(key)].rows;
  return rows;
}

int64_t WeightPlan::inputs(const WeightKey& key) const { return spec_.tensors[bindings_.at(key)].cols; }

std::string WeightPlan::vector(const std::string& name, const WeightKey& key, OnnxType type, float offset) {
  WeightJob made = job(WeightJob::Form::vector, {key}, type);
  made.offset = offset;
  made.values = tensor(name, type, {made.rows});
  jobs_.push_back(std::move(made));
  return name;
}

std::string WeightPlan::stacked_vector(const std::string& name, const std::vector<WeightKey>& keys, OnnxType type) {
  WeightJob made = job(WeightJob::Form::vector, keys, type);
  made.values = tensor(name, type, {made.rows});
  jobs_.push_back(std::move(made));
  return name;
}

std::string WeightPlan::rows(const std::string& name, const WeightKey& key, OnnxType type) {
  WeightJob made = job(WeightJob::Form::rows, {key}, type);
  made.values = tensor(name, type, {made.rows, made.cols});
  jobs_.push_back(std::move(made));
  return name;
}

std::string WeightPlan::columns(const std::string& name, const std::vector<WeightKey>& keys, OnnxType type) {
  WeightJob made = job(WeightJob::Form::columns, keys, type);
  made.values = tensor(name, type, {made.cols, made.rows});
  jobs_.push_back(std::move(made));
  return name;
}

BlockedNames WeightPlan::blocks(const std::string& name, const std::vector<WeightKey>& keys, OnnxType scale_type,
                                BlockForm form) {
  const auto [bits, block] = form;
  WeightJob made = job(WeightJob::Form::blocks, keys, scale_type);
  made.bits = bits;
  made.block = block;
  const int64_t count = made.blocks();
  BlockedNames names{name + ".blocks", name + ".scales", {}};
  made.values = tensor(names.values, OnnxType::u8, {made.rows, count, int64_t{block} * bits / 8});
  made.scales = tensor(names.scales, scale_type, {made.rows, count});
  if (bits == 4) {
    names.zero_points = name + ".zero_points";
    made.zero_points = tensor(names.zero_points, OnnxType::u8, {made.rows, (count + 1) / 2});
  }
  jobs_.push_back(std::move(made));
  return names;
}

BlockedNames WeightPlan::block_rows(const std::string& name, const WeightKey& key, OnnxType scale_type, int block) {
  WeightJob made = job(WeightJob::Form::blocks, {key}, scale_type);
  made.bits = 8;
  made.block = block;
  INFERNEO_CHECK(made.cols % block == 0, name);
  BlockedNames names{name + ".rows", name + ".scales", {}};
  made.values = tensor(names.values, OnnxType::u8, {made.rows, made.cols});
  made.scales = tensor(names.scales, scale_type, {made.rows, made.blocks()});
  jobs_.push_back(std::move(made));
  return names;
}

BlockedNames WeightPlan::block_columns(const std::string& name, const std::vector<WeightKey>& keys, OnnxType scale_type,
                                       BlockForm form) {
  const auto [bits, block] = form;
  WeightJob made = job(WeightJob::Form::block_columns, keys, scale_type);
  made.bits = bits;
  made.block = block;
  BlockedNames names{name + ".integers", name + ".scales", {}};
  made.values = tensor(names.values, bits == 4 ? OnnxType::u4 : OnnxType::i8, {made.cols, made.rows});
  made.scales = tensor(names.scales, scale_type, {made.blocks(), made.rows});
  if (bits == 4) {
    names.zero_points = name + ".zero_points";
    made.zero_points = tensor(names.zero_points, OnnxType::u4, {made.blocks(), made.rows});
  }
  jobs_.push_back(std::move(made));
  return names;
}

std::string WeightPlan::alias(const std::string& name, const std::string& of, std::vector<int64_t> dims) {
  const auto original = std::find_if(graph_.initializers.begin(), graph_.initializers.end(),
                                     [&](const OnnxTensor& tensor) { return tensor.name == of; });
  INFERNEO_CHECK(original != graph_.initializers.end(), of);
  OnnxTensor added = *original;
  added.name = name;
  added.dims = std::move(dims);
  INFERNEO_CHECK(added.num_elements() == original->num_elements(), name);
  graph_.initializers.push_back(std::move(added));
  return name;
}

RopeNames WeightPlan::rope(int32_t index, OnnxType type) {
  const auto known = ropes_.find(index);
  if (known != ropes_.end()) return known->second;
  WeightJob made;
  made.form = WeightJob::Form::rope;
  made.type = type;
  made.rope = static_cast<size_t>(index);
  made.rows = max_positions_;
  made.cols = spec_.ropes[made.rope].rotary_dim / 2;
  RopeNames names{fmt::format("rope.{}.cos", index), fmt::format("rope.{}.sin", index)};
  made.values = tensor(names.cosines, type, {made.rows, made.cols});
  made.scales = tensor(names.sines, type, {made.rows, made.cols});
  jobs_.push_back(std::move(made));
  ropes_[index] = names;
  return names;
}

}  // namespace inferneo
