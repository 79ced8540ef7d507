#include "formats/onnx/graph_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "formats/onnx/function_calls.h"
#include "formats/onnx/tensor_scan.h"
#include "formats/onnx/wire_reader.h"

namespace inferneo::onnx {
namespace {

using Message = std::span<const std::byte>;

// Where data beside the file is allowed: initialisers of graphs have it, and nothing else.
enum class External : uint8_t { allowed, refused };

// Parsers pass over a field of a type that it does not have in the format. We do not: what such a field would leave in
// its place here and there would differ.
bool read_text(const WireField& field, std::string_view& text) {
  text = field.text();
  return field.type == WireType::bytes;
}
bool read_number(const WireField& field, int64_t& number) {
  number = static_cast<int64_t>(field.value);
  return field.type == WireType::varint;
}

// Kernels divide by them.
bool is_steps(std::string_view attribute) { return attribute == "strides" || attribute == "dilations"; }

class GraphScan {
 public:
  explicit GraphScan(std::string_view file) : file_(file) {}

  Result<OnnxFacts> model(Message message);

 private:
  Error fail(std::string_view what, ErrorCode code = ErrorCode::malformed) const {
    return make_error(code, fmt::format("{}: {}", file_, what));
  }
  Error cut_short(std::string_view what) const { return fail(fmt::format("{} is cut short or broken", what)); }

  Status model_field(const WireField& field);
  Status opset(Message message, bool of_model);
  Status property(Message message);
  Status graph(Message message, size_t depth, FunctionCalls::Body& body);
  Status node(Message message, size_t depth, FunctionCalls::Body& body);
  void count_block_weights(Message node);
  Status attribute(Message message, std::string_view node, size_t depth, FunctionCalls::Body& body);
  Status steps(std::string_view name, const WireField& field, std::string_view node) const;
  Status function(Message message);
  Status tensor(Message message, External external, std::set<std::string, std::less<>>* names);
  Status sparse_tensor(Message message);
  Result<OnnxValue> value(Message message) const;
  Status value_type(Message message, OnnxValue& value) const;
  Status value_shape(Message message, OnnxValue& value) const;

  const std::string_view file_;
  OnnxFacts facts_;
  Message graph_;
  std::vector<Message> functions_;
  size_t num_tensors_ = 0;
  FunctionCalls calls_;
};

Result<OnnxFacts> GraphScan::model(Message message) {
  if (message.size() > OnnxLimits::kMaxFileBytes) return fail("larger than the 2 GiB that the format allows");
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) RETURN_IF_ERROR(model_field(field));
  if (reader.failed()) return cut_short("the file");
  if (facts_.ir_version < 1 || graph_.data() == nullptr) return fail("not an ONNX model: it has no graph");
  if (facts_.opsets.empty()) return fail("it names no opset");
  FunctionCalls::Body main;
  RETURN_IF_ERROR(graph(graph_, 0, main));
  for (const Message& body : functions_) RETURN_IF_ERROR(function(body));
  RETURN_IF_ERROR(calls_.check(main, file_));
  facts_.num_functions = functions_.size();
  return std::move(facts_);
}

Status GraphScan::model_field(const WireField& field) {
  const bool is_message = field.type == WireType::bytes;
  switch (field.number) {
    case 1:
      return read_number(field, facts_.ir_version) ? ok_status() : cut_short("the version of the format");
    case 7:
      // Parsers join repeated ones; what we have looked at must be what they see.
      if (!is_message || graph_.data() != nullptr) return fail("it has more than one graph");
      graph_ = field.bytes;
      return ok_status();
    case 8:
      return is_message ? opset(field.bytes, true) : cut_short("an opset");
    case 14:
      return is_message ? property(field.bytes) : cut_short("the metadata");
    case 20:
      return fail("it is a model for training", ErrorCode::unsupported);
    case 25:
      if (!is_message) return cut_short("a function");
      if (functions_.size() == OnnxLimits::kMaxFunctions) {
        return fail(fmt::format("more than {} functions", OnnxLimits::kMaxFunctions));
      }
      functions_.push_back(field.bytes);
      return ok_status();
    default:
      return ok_status();
  }
}

Status GraphScan::opset(Message message, bool of_model) {
  WireReader reader(message);
  WireField field;
  std::string_view domain;
  int64_t version = 0;
  bool sound = true;
  while (sound && reader.next(field)) {
    if (field.number == 1) sound = read_text(field, domain);
    if (field.number == 2) sound = read_number(field, version);
  }
  if (!sound || reader.failed() || domain.size() > OnnxLimits::kMaxNameBytes) return cut_short("an opset");
  if (facts_.opsets.size() > OnnxLimits::kMaxMetadata) return fail("too many opsets");
  if (of_model) facts_.opsets[domain == "ai.onnx" ? std::string() : std::string(domain)] = version;
  return ok_status();
}

Status GraphScan::property(Message message) {
  WireReader reader(message);
  WireField field;
  std::string key, text;
  while (reader.next(field)) {
    if (field.number == 1) key = std::string(field.text().substr(0, OnnxLimits::kMaxNameBytes));
    if (field.number == 2) text = std::string(field.text().substr(0, OnnxLimits::kMaxNameBytes));
  }
  if (reader.failed()) return cut_short("the metadata");
  if (facts_.metadata.size() >= OnnxLimits::kMaxMetadata) return fail("too many entries of metadata");
  facts_.metadata[std::move(key)] = std::move(text);
  return ok_status();
}

// Inputs that are initialisers as well (as before version 4 of the format) are not the model's inputs.
Status GraphScan::graph(Message message, size_t depth, FunctionCalls::Body& body) {
  if (depth > OnnxLimits::kMaxGraphDepth) {
    return fail(fmt::format("graphs within graphs, more than {} deep", OnnxLimits::kMaxGraphDepth));
  }
  std::vector<OnnxValue> inputs, outputs;
  std::set<std::string, std::less<>> initializers;
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    const bool known = field.number == 1 || field.number == 5 || field.number == 11 || field.number == 12 ||
                       field.number == 13 || field.number == 15;
    if (!known) continue;
    if (field.type != WireType::bytes) return cut_short("a graph");
    switch (field.number) {
      case 1:
        RETURN_IF_ERROR(node(field.bytes, depth, body));
        break;
      case 5:
        RETURN_IF_ERROR(tensor(field.bytes, External::allowed, &initializers));
        break;
      case 15:
        RETURN_IF_ERROR(sparse_tensor(field.bytes));
        break;
      default: {
        ASSIGN_OR_RETURN(OnnxValue described, value(field.bytes));
        if (described.type == ElementType::bfloat16) facts_.uses_bfloat16 = true;
        if (inputs.size() + outputs.size() >= OnnxLimits::kMaxValues) return fail("too many inputs and outputs");
        if (field.number == 11) {
          inputs.push_back(std::move(described));
        } else if (field.number == 12) {
          outputs.push_back(std::move(described));
        }
      }
    }
  }
  if (reader.failed()) return cut_short("a graph");
  if (depth > 0) return ok_status();
  const auto is_given = [&](const OnnxValue& input) { return initializers.contains(input.name); };
  std::copy_if(inputs.begin(), inputs.end(), std::back_inserter(facts_.optional_inputs), is_given);
  std::erase_if(inputs, is_given);
  facts_.inputs = std::move(inputs);
  facts_.outputs = std::move(outputs);
  return ok_status();
}

Status GraphScan::node(Message message, size_t depth, FunctionCalls::Body& body) {
  if (++facts_.num_nodes > OnnxLimits::kMaxNodes) return fail(fmt::format("more than {} nodes", OnnxLimits::kMaxNodes));
  std::string_view name, op, domain;
  WireReader reader(message);
  WireField field;
  bool sound = true;
  while (sound && reader.next(field)) {
    if (field.number == 3) sound = read_text(field, name);
    if (field.number == 4) sound = read_text(field, op);
    if (field.number == 7) sound = read_text(field, domain);
  }
  if (!sound || reader.failed()) return cut_short(fmt::format("node '{}'", shown_name(name)));
  if (op.empty() || op.size() > OnnxLimits::kMaxNameBytes || domain.size() > OnnxLimits::kMaxNameBytes) {
    return fail(fmt::format("node '{}' names no operator", shown_name(name)));
  }
  if (domain == "ai.onnx") domain = {};
  std::string key = domain.empty() ? std::string(op) : fmt::format("{}.{}", domain, op);
  body.add(key);
  if (key == "com.microsoft.MatMulNBits") count_block_weights(message);
  ++facts_.ops[std::move(key)];
  const std::string_view label = name.empty() ? op : name;
  WireReader again(message);
  while (again.next(field)) {
    if (field.number != 5) continue;
    if (field.type != WireType::bytes) return cut_short(fmt::format("node '{}'", shown_name(label)));
    RETURN_IF_ERROR(attribute(field.bytes, label, depth, body));
  }
  return ok_status();
}

// Of a node MatMulNBits, by its attributes; what they leave open counts as nothing.
void GraphScan::count_block_weights(Message node) {
  constexpr int64_t kDefaultBits = 4;
  std::map<std::string_view, int64_t> numbers;
  WireReader reader(node);
  WireField field;
  while (reader.next(field)) {
    if (field.number != 5 || field.type != WireType::bytes) continue;
    std::string_view name;
    int64_t number = 0;
    WireReader attribute(field.bytes);
    WireField part;
    while (attribute.next(part)) {
      if (part.number == 1) name = part.text();
      if (part.number == 3) (void)read_number(part, number);
    }
    if (name == "bits" || name == "K" || name == "N") numbers[name] = number;
  }
  const int64_t bits = numbers.contains("bits") ? numbers["bits"] : kDefaultBits;
  if (bits < 1 || bits > 8) return;
  const auto size = [&](std::string_view name) { return static_cast<double>(std::max<int64_t>(0, numbers[name])); };
  facts_.block_weights[bits] += size("K") * size("N");
}

Status GraphScan::attribute(Message message, std::string_view node, size_t depth, FunctionCalls::Body& body) {
  std::string_view name, reference;
  WireReader first(message);
  WireField field;
  bool sound = true;
  std::set<uint32_t> singles;  // of a tensor, a graph, a sparse tensor
  while (sound && first.next(field)) {
    if (field.number == 1) sound = read_text(field, name);
    if (field.number == 21) sound = read_text(field, reference);
    // Parsers join repeated ones; what we look at one by one must be what they see.
    if (field.number == 5 || field.number == 6 || field.number == 22) sound = singles.insert(field.number).second;
  }
  if (!sound || first.failed()) return cut_short(fmt::format("an attribute of node '{}'", shown_name(node)));
  if (!reference.empty() && is_steps(name)) {
    return fail(fmt::format("node '{}': its {} are what a function's caller says, and cannot be looked at",
                            shown_name(node), name));
  }
  WireReader reader(message);
  while (reader.next(field)) {
    const bool is_message = field.type == WireType::bytes;
    switch (field.number) {
      case 5:
      case 10:
        if (!is_message) return cut_short("a tensor");
        RETURN_IF_ERROR(tensor(field.bytes, External::refused, nullptr));
        break;
      case 6:
      case 11:
        if (!is_message) return cut_short("a graph");
        RETURN_IF_ERROR(graph(field.bytes, depth + 1, body));
        break;
      case 8:
        RETURN_IF_ERROR(steps(name, field, node));
        break;
      case 22:
      case 23:
        if (!is_message) return cut_short("a sparse tensor");
        RETURN_IF_ERROR(sparse_tensor(field.bytes));
        break;
      default:
        break;
    }
  }
  return ok_status();
}

Status GraphScan::steps(std::string_view name, const WireField& field, std::string_view node) const {
  if (!is_steps(name)) return ok_status();
  bool sound = field.type != WireType::varint || static_cast<int64_t>(field.value) > 0;
  if (field.type == WireType::bytes) {
    WireReader packed(field.bytes);
    uint64_t step = 0;
    while (packed.next_packed(step)) sound = sound && static_cast<int64_t>(step) > 0;
    sound = sound && !packed.failed();
  }
  if (sound) return ok_status();
  return fail(fmt::format("node '{}': its {} are not all positive", shown_name(node), name));
}

Status GraphScan::function(Message message) {
  std::string_view name, domain;
  FunctionCalls::Body body;
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    const bool is_message = field.type == WireType::bytes;
    if (field.number == 1 && !read_text(field, name)) return cut_short("a function");
    if (field.number == 10 && !read_text(field, domain)) return cut_short("a function");
    if (field.number == 7 || field.number == 9 || field.number == 11) {
      if (!is_message) return cut_short("a function");
      if (field.number == 7) RETURN_IF_ERROR(node(field.bytes, 1, body));
      if (field.number == 9) RETURN_IF_ERROR(opset(field.bytes, false));
      if (field.number == 11) RETURN_IF_ERROR(attribute(field.bytes, "of a function", 1, body));
    }
  }
  if (reader.failed() || name.empty()) return cut_short("a function");
  if (name.size() > OnnxLimits::kMaxNameBytes || domain.size() > OnnxLimits::kMaxNameBytes) {
    return fail("the name of a function is too long");
  }
  const bool of_onnx = domain.empty() || domain == "ai.onnx";
  if (!calls_.define(of_onnx ? std::string(name) : fmt::format("{}.{}", domain, name), std::move(body))) {
    return fail(fmt::format("function '{}' is defined twice", shown_name(name)));
  }
  return ok_status();
}

Status GraphScan::tensor(Message message, External external, std::set<std::string, std::less<>>* names) {
  if (++num_tensors_ > OnnxLimits::kMaxTensors) {
    return fail(fmt::format("more than {} tensors", OnnxLimits::kMaxTensors));
  }
  ASSIGN_OR_RETURN(const TensorFact fact, scan_tensor(message, file_));
  if (fact.type == ElementType::bfloat16) facts_.uses_bfloat16 = true;
  if (fact.bytes > OnnxLimits::kMaxTensorBytes - facts_.tensor_bytes) return fail("its tensors are too large together");
  facts_.tensor_bytes += fact.bytes;
  if (names != nullptr) names->emplace(fact.name);
  if (!fact.external) return ok_status();
  if (external == External::refused) {
    return fail(fmt::format("tensor '{}' is no initialiser of a graph, and its data would lie in another file",
                            shown_name(fact.name)),
                ErrorCode::refused);
  }
  OnnxExternalFile& data = facts_.external[fact.external->location];
  if (facts_.external.size() > OnnxLimits::kMaxExternalFiles) return fail("its data lie in too many files");
  data.needed = std::max(data.needed, fact.external->offset + fact.external->length);
  data.bytes += fact.external->length;
  return ok_status();
}

Status GraphScan::sparse_tensor(Message message) {
  WireReader reader(message);
  WireField field;
  std::set<uint32_t> singles;
  while (reader.next(field)) {
    if (field.number != 1 && field.number != 2) continue;
    if (field.type != WireType::bytes || !singles.insert(field.number).second) return cut_short("a sparse tensor");
    RETURN_IF_ERROR(tensor(field.bytes, External::refused, nullptr));
  }
  return reader.failed() ? Status(cut_short("a sparse tensor")) : ok_status();
}

Result<OnnxValue> GraphScan::value(Message message) const {
  OnnxValue described;
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.type != WireType::bytes) continue;
    if (field.number == 1) {
      if (field.bytes.size() > OnnxLimits::kMaxNameBytes) return fail("the name of an input or output is too long");
      described.name = std::string(field.text());
    }
    if (field.number == 2) RETURN_IF_ERROR(value_type(field.bytes, described));
  }
  if (reader.failed()) return cut_short("an input or output");
  return described;
}

Status GraphScan::value_type(Message message, OnnxValue& described) const {
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number != 1 || field.type != WireType::bytes) continue;  // not a tensor
    WireReader tensor_type(field.bytes);
    WireField part;
    while (tensor_type.next(part)) {
      if (part.number == 1 && part.type == WireType::varint && part.value <= 64) {
        described.type = static_cast<ElementType>(part.value);
      }
      if (part.number == 2 && part.type == WireType::bytes) RETURN_IF_ERROR(value_shape(part.bytes, described));
    }
    if (tensor_type.failed()) return cut_short("the type of an input or output");
  }
  return reader.failed() ? Status(cut_short("the type of an input or output")) : ok_status();
}

Status GraphScan::value_shape(Message message, OnnxValue& described) const {
  described.has_shape = true;
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number != 1 || field.type != WireType::bytes) continue;
    int64_t size = -1;
    WireReader dimension(field.bytes);
    WireField part;
    while (dimension.next(part)) {
      if (part.number == 1 && part.type == WireType::varint) size = static_cast<int64_t>(part.value);
    }
    if (dimension.failed() || described.shape.size() == OnnxLimits::kMaxRank) {
      return cut_short(fmt::format("the shape of '{}'", shown_name(described.name)));
    }
    described.shape.push_back(std::max<int64_t>(size, -1));
  }
  return reader.failed() ? Status(cut_short("a shape")) : ok_status();
}

}  // namespace

Result<OnnxFacts> scan_onnx_graph(std::span<const std::byte> bytes, std::string_view file) {
  return GraphScan(file).model(bytes);
}

}  // namespace inferneo::onnx
