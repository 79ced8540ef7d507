#include "formats/onnx/tensor_scan.h"

#include <fmt/format.h>

#include <charconv>

#include "formats/onnx/wire_reader.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kMaxExternalEntries = 16;
constexpr uint64_t kMaxElements = uint64_t{1} << 48;

// What one TensorProto holds, as it stands there.
struct RawTensor {
  std::string_view name;
  int64_t type = 0;
  std::vector<int64_t> shape;
  uint64_t floats = 0, int32s = 0, strings = 0, string_bytes = 0, int64s = 0, doubles = 0, uint64s = 0;  // counts
  std::optional<std::span<const std::byte>> raw_data;
  int64_t location = 0;  // 1: external
  std::vector<std::pair<std::string_view, std::string_view>> external;
  bool segmented = false;
};

// Elements of a packed or plain repeated field. False: cut short.
bool count_varints(const WireField& field, uint64_t& count) {
  if (field.type == WireType::varint) {
    ++count;
    return true;
  }
  if (field.type != WireType::bytes) return false;
  WireReader packed(field.bytes);
  uint64_t value = 0;
  while (packed.next_packed(value)) ++count;
  return !packed.failed();
}

bool count_fixed(const WireField& field, WireType single, size_t size, uint64_t& count) {
  if (field.type == single) {
    ++count;
    return true;
  }
  if (field.type != WireType::bytes || field.bytes.size() % size != 0) return false;
  count += field.bytes.size() / size;
  return true;
}

bool read_tensor_dims(const WireField& field, std::vector<int64_t>& shape) {
  if (field.type == WireType::varint) {
    shape.push_back(static_cast<int64_t>(field.value));
    return shape.size() <= OnnxLimits::kMaxRank;
  }
  if (field.type != WireType::bytes) return false;
  WireReader packed(field.bytes);
  uint64_t value = 0;
  while (packed.next_packed(value)) {
    shape.push_back(static_cast<int64_t>(value));
    if (shape.size() > OnnxLimits::kMaxRank) return false;
  }
  return !packed.failed();
}

bool read_external_entry(std::span<const std::byte> message, std::string_view& key, std::string_view& value) {
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.type != WireType::bytes) continue;
    if (field.number == 1) key = field.text();
    if (field.number == 2) value = field.text();
  }
  return !reader.failed();
}

bool read_tensor_field(const WireField& field, RawTensor& raw) {
  switch (field.number) {
    case 1:
      return read_tensor_dims(field, raw.shape);
    case 2:
      raw.type = static_cast<int64_t>(field.value);
      return field.type == WireType::varint;
    case 3:
      raw.segmented = true;
      return true;
    case 4:
      return count_fixed(field, WireType::fixed32, 4, raw.floats);
    case 5:
      return count_varints(field, raw.int32s);
    case 6:
      raw.string_bytes += field.bytes.size();
      ++raw.strings;
      return field.type == WireType::bytes;
    case 7:
      return count_varints(field, raw.int64s);
    case 8:
      raw.name = field.text();
      return field.type == WireType::bytes;
    case 9:
      raw.raw_data = field.bytes;
      return field.type == WireType::bytes;
    case 10:
      return count_fixed(field, WireType::fixed64, 8, raw.doubles);
    case 11:
      return count_varints(field, raw.uint64s);
    case 13: {
      if (field.type != WireType::bytes || raw.external.size() >= kMaxExternalEntries) return false;
      raw.external.emplace_back();
      return read_external_entry(field.bytes, raw.external.back().first, raw.external.back().second);
    }
    case 14:
      raw.location = static_cast<int64_t>(field.value);
      return field.type == WireType::varint;
    default:
      return true;
  }
}

std::optional<uint64_t> parse_decimal(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// The elements that stand in the field that is this type's; none: the type has no such field.
std::optional<uint64_t> typed_elements(const RawTensor& raw, ElementType type) {
  switch (type) {
    case ElementType::float32:
      return raw.floats;
    case ElementType::complex64:
      return raw.floats / 2;
    case ElementType::float64:
      return raw.doubles;
    case ElementType::complex128:
      return raw.doubles / 2;
    case ElementType::int64:
      return raw.int64s;
    case ElementType::uint32:
    case ElementType::uint64:
      return raw.uint64s;
    case ElementType::string:
      return raw.strings;
    case ElementType::undefined:
      return std::nullopt;
    default:
      return raw.int32s;
  }
}

Result<ExternalData> external_of(const RawTensor& raw, uint64_t bytes, std::string_view label) {
  ExternalData data;
  data.length = bytes;
  const auto fail = [&](ErrorCode code, std::string_view what) {
    return make_error(code, fmt::format("{}: tensor '{}': {}", label, shown_name(raw.name), what));
  };
  uint32_t seen = 0;  // readers disagree on which of two counts
  for (const auto& [key, value] : raw.external) {
    const uint32_t bit = key == "location" ? 1 : key == "offset" ? 2 : key == "length" ? 4 : 0;
    if ((seen & bit) != 0)
      return fail(ErrorCode::malformed, fmt::format("the {} of its external data stands twice", key));
    seen |= bit;
    if (key == "location") {
      data.location = std::string(value.substr(0, OnnxLimits::kMaxNameBytes + 1));
    } else if (key == "offset" || key == "length") {
      const std::optional<uint64_t> number = parse_decimal(value);
      if (!number) return fail(ErrorCode::malformed, fmt::format("the {} of its external data is no number", key));
      (key == "offset" ? data.offset : data.length) = *number;
    }
  }
  if (!is_safe_location(data.location)) {
    return fail(ErrorCode::refused,
                fmt::format("its data would lie in '{}', which is no file beneath the model's directory",
                            shown_name(data.location)));
  }
  if (data.length != bytes) {
    return fail(ErrorCode::malformed,
                fmt::format("its shape needs {} bytes and its external data have {}", bytes, data.length));
  }
  if (data.offset > UINT64_MAX - data.length)
    return fail(ErrorCode::malformed, "its external data end beyond all files");
  return data;
}

}  // namespace

std::string shown_name(std::string_view name) {
  constexpr size_t kShown = 120;
  std::string text;
  for (const char c : name.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte >= 0x7f ? '?' : c;
  }
  return name.size() > kShown ? text + "..." : text;
}

bool is_safe_location(std::string_view location) {
  if (location.empty() || location.size() > OnnxLimits::kMaxNameBytes) return false;
  for (const char c : location) {
    // '*': ONNX Runtime marks addresses in its own memory with it, and would take a file's word for one.
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\' || c == '*') return false;
  }
  while (true) {
    const size_t slash = location.find('/');
    const std::string_view part = location.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    location.remove_prefix(slash + 1);
  }
}

Result<TensorFact> scan_tensor(std::span<const std::byte> message, std::string_view label) {
  RawTensor raw;
  WireReader reader(message);
  WireField field;
  bool sound = true;
  while (sound && reader.next(field)) sound = read_tensor_field(field, raw);
  const auto fail = [&](ErrorCode code, std::string_view what) {
    return make_error(code, fmt::format("{}: tensor '{}': {}", label, shown_name(raw.name), what));
  };
  if (!sound || reader.failed()) return fail(ErrorCode::malformed, "cut short, or not a tensor");
  if (raw.segmented) return fail(ErrorCode::malformed, "tensors in segments are not read");
  if (raw.name.size() > OnnxLimits::kMaxNameBytes) return fail(ErrorCode::malformed, "its name is too long");

  TensorFact fact;
  fact.name = raw.name;
  fact.type = raw.type > 0 && raw.type <= static_cast<int64_t>(ElementType::float4e2m1)
                  ? static_cast<ElementType>(raw.type)
                  : ElementType::undefined;
  if (fact.type == ElementType::undefined) {
    return fail(ErrorCode::malformed, fmt::format("data type {} is not known", raw.type));
  }
  uint64_t elements = 1;
  for (const int64_t dimension : raw.shape) {
    if (dimension < 0) return fail(ErrorCode::malformed, "a dimension is negative");
    const auto size = static_cast<uint64_t>(dimension);
    if (size != 0 && elements > kMaxElements / size) return fail(ErrorCode::malformed, "its shape is too large");
    elements *= size;
  }
  fact.shape = std::move(raw.shape);
  const auto bits = static_cast<uint64_t>(element_bits(fact.type));
  fact.bytes = fact.type == ElementType::string ? raw.string_bytes : (elements * bits + 7) / 8;
  if (raw.location == 1) {
    if (fact.type == ElementType::string) return fail(ErrorCode::malformed, "strings cannot lie in another file");
    if (raw.raw_data) return fail(ErrorCode::malformed, "its data are here and in another file");
    ASSIGN_OR_RETURN(fact.external, external_of(raw, fact.bytes, label));
    return fact;
  }
  if (raw.location != 0) return fail(ErrorCode::malformed, "where its data lie is not known");
  if (raw.raw_data && fact.type != ElementType::string) {
    if (raw.raw_data->size() == fact.bytes) return fact;
    return fail(ErrorCode::malformed,
                fmt::format("its shape needs {} bytes and {} are there", fact.bytes, raw.raw_data->size()));
  }
  // Two elements of four bits share an entry; some writers spend one on each.
  const uint64_t there = typed_elements(raw, fact.type).value_or(0);
  if (there != elements && !(bits == 4 && there == (elements + 1) / 2)) {
    return fail(ErrorCode::malformed, fmt::format("its shape needs {} elements and {} are there", elements, there));
  }
  return fact;
}

}  // namespace inferneo::onnx
