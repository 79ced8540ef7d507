#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "formats/pickle.h"

namespace inferneo {
namespace {

using nlohmann::json;
using Limits = SafetensorsLimits;

constexpr size_t kLengthBytes = 8;

struct HeaderEntry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::vector<uint64_t> offsets;  // begin, end
  bool has_offsets = false;
};

std::string printable(std::string_view name) {
  return json(std::string(name.substr(0, 120))).dump(-1, ' ', true, json::error_handler_t::replace);
}

// Reads the header event by event and keeps only what an entry needs, so memory is bounded by the number of tensors
// and not by what else a hostile header holds. Returning false stops the parser.
class HeaderReader {
 public:
  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_float(json::number_float_t, const json::string_t&) { return unexpected("a fraction or huge number"); }
  bool number_integer(json::number_integer_t) { return unexpected("a negative number"); }
  bool number_unsigned(json::number_unsigned_t value);
  bool string(json::string_t& value);
  bool binary(json::binary_t&) { return unexpected("binary"); }
  bool start_object(size_t);
  bool end_object();
  bool start_array(size_t);
  bool end_array();
  bool key(json::string_t& name);
  bool parse_error(size_t position, const std::string&, const json::exception&) {
    return fail(ErrorCode::malformed, fmt::format("the header is not valid JSON at its byte {}", position));
  }

  Error error(std::string_view file) const { return make_error(code_, fmt::format("{}: {}", file, problem_)); }
  std::vector<HeaderEntry> entries;
  std::map<std::string, std::string> metadata;

 private:
  enum class Place { outside, top, tensor, metadata, shape, offsets };

  bool fail(ErrorCode code, std::string problem) {
    if (problem_.empty()) {
      code_ = code;
      problem_ = std::move(problem);
    }
    return false;
  }
  bool unexpected(std::string_view what) {
    return fail(ErrorCode::malformed, fmt::format("the header has {} where it does not belong{}", what, where()));
  }
  std::string where() const {
    if (place_ == Place::metadata) return " (in __metadata__, which may hold strings only)";
    if (place_ == Place::outside || place_ == Place::top) return "";
    return fmt::format(" (tensor {})", printable(entries.back().name));
  }
  bool start_tensor_key(const std::string& name);
  bool start_field(const std::string& name);

  Place place_ = Place::outside;
  bool next_is_metadata_ = false;
  bool metadata_seen_ = false;
  std::string field_;  // of a tensor, or the key of a metadata entry
  ErrorCode code_ = ErrorCode::malformed;
  std::string problem_;
};

bool HeaderReader::number_unsigned(json::number_unsigned_t value) {
  HeaderEntry* entry = entries.empty() ? nullptr : &entries.back();
  if (place_ == Place::shape) {
    if (entry->shape->size() == Limits::kMaxRank) {
      return fail(ErrorCode::malformed,
                  fmt::format("tensor {} has more than {} dimensions", printable(entry->name), Limits::kMaxRank));
    }
    if (value > static_cast<uint64_t>(INT64_MAX)) return unexpected("a dimension of 2^63 or more");
    entry->shape->push_back(static_cast<int64_t>(value));
    return true;
  }
  if (place_ == Place::offsets && entry->offsets.size() < 2) {
    entry->offsets.push_back(value);
    return true;
  }
  return unexpected("a number");
}

bool HeaderReader::string(json::string_t& value) {
  if (place_ == Place::metadata) {
    metadata[field_] = std::move(value);
    return true;
  }
  if (place_ != Place::tensor || field_ != "dtype") return unexpected("a string");
  HeaderEntry& entry = entries.back();
  entry.dtype = dtype_from_safetensors(value);
  if (!entry.dtype) {
    return fail(ErrorCode::unsupported, fmt::format("tensor {} has the element type {}, which is not supported",
                                                    printable(entry.name), printable(value)));
  }
  return true;
}

bool HeaderReader::start_object(size_t) {
  if (place_ == Place::outside) {
    place_ = Place::top;
    return true;
  }
  if (place_ != Place::top) return unexpected("an object");
  place_ = next_is_metadata_ ? Place::metadata : Place::tensor;
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::tensor) {
    const HeaderEntry& entry = entries.back();
    if (!entry.dtype || !entry.shape || entry.offsets.size() != 2) {
      return fail(ErrorCode::malformed,
                  fmt::format("tensor {} needs dtype, shape and two data_offsets", printable(entry.name)));
    }
  }
  place_ = place_ == Place::top ? Place::outside : Place::top;
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (place_ != Place::tensor) return unexpected("an array");
  HeaderEntry& entry = entries.back();
  if (field_ == "shape") {
    entry.shape.emplace();
    place_ = Place::shape;
    return true;
  }
  if (field_ == "data_offsets") {
    entry.has_offsets = true;
    place_ = Place::offsets;
    return true;
  }
  return unexpected("an array");
}

bool HeaderReader::end_array() {
  place_ = Place::tensor;
  return true;
}

bool HeaderReader::key(json::string_t& name) {
  if (place_ == Place::top) return start_tensor_key(name);
  if (place_ == Place::metadata) {
    field_ = name;
    if (metadata.contains(name)) {
      return fail(ErrorCode::malformed, fmt::format("__metadata__ has the key {} twice", printable(name)));
    }
    if (metadata.size() == Limits::kMaxMetadata) {
      return fail(ErrorCode::malformed, fmt::format("__metadata__ has more than {} entries", Limits::kMaxMetadata));
    }
    return true;
  }
  return start_field(name);
}

bool HeaderReader::start_tensor_key(const std::string& name) {
  next_is_metadata_ = name == "__metadata__";
  if (next_is_metadata_) {
    if (metadata_seen_) return fail(ErrorCode::malformed, "the header has __metadata__ twice");
    metadata_seen_ = true;
    return true;
  }
  if (entries.size() == Limits::kMaxTensors) {
    return fail(ErrorCode::malformed, fmt::format("more than {} tensors in one file", Limits::kMaxTensors));
  }
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (name.empty() || name.size() > Limits::kMaxNameBytes || std::any_of(name.begin(), name.end(), is_control)) {
    return fail(ErrorCode::malformed,
                fmt::format("tensor name {} is empty, longer than {} bytes or holds control characters",
                            printable(name), Limits::kMaxNameBytes));
  }
  entries.emplace_back().name = name;
  return true;
}

bool HeaderReader::start_field(const std::string& name) {
  const HeaderEntry& entry = entries.back();
  field_ = name;
  const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
  if (!known) {
    return fail(ErrorCode::malformed,
                fmt::format("tensor {} has the unknown field {}", printable(entry.name), printable(name)));
  }
  if ((name == "dtype" && entry.dtype) || (name == "shape" && entry.shape) ||
      (name == "data_offsets" && entry.has_offsets)) {
    return fail(ErrorCode::malformed, fmt::format("tensor {} has the field {} twice", printable(entry.name), name));
  }
  return true;
}

// dtype times shape, or nullopt when that does not fit 63 bits.
std::optional<uint64_t> byte_length(DType dtype, const std::vector<int64_t>& shape) {
  int64_t length = static_cast<int64_t>(dtype_size(dtype));
  bool overflow = false;
  bool empty = false;
  for (const int64_t dimension : shape) {
    empty |= dimension == 0;
    overflow |= __builtin_mul_overflow(length, dimension, &length);
  }
  if (empty) return 0;  // whatever the other dimensions say
  if (overflow) return std::nullopt;
  return static_cast<uint64_t>(length);
}

Result<SafetensorsTensor> place_tensor(HeaderEntry& entry, std::span<const std::byte> file_bytes, size_t data_start,
                                       std::string_view file) {
  const std::span<const std::byte> data = file_bytes.subspan(data_start);
  const auto fail = [&](ErrorCode code, const std::string& what) {
    return make_error(code, fmt::format("{}: tensor {} {}", file, printable(entry.name), what));
  };
  const uint64_t begin = entry.offsets[0];
  const uint64_t end = entry.offsets[1];
  if (begin > end || end > data.size()) {
    return fail(ErrorCode::malformed, fmt::format("has data_offsets [{}, {}], outside the {} bytes of data (is the "
                                                  "file complete?)",
                                                  begin, end, data.size()));
  }
  const std::optional<uint64_t> length = byte_length(*entry.dtype, *entry.shape);
  if (!length || *length != end - begin) {
    return fail(ErrorCode::malformed,
                fmt::format("spans {} bytes, but its type and shape need {}", end - begin,
                            length ? fmt::format("{}", *length) : std::string("more than 2^63 - 1")));
  }
  if (begin != end && (data_start + begin) % dtype_size(*entry.dtype) != 0) {
    return fail(ErrorCode::unsupported,
                "is not aligned to its element size; save the file again with a current safetensors library");
  }
  return SafetensorsTensor{std::move(entry.name), *entry.dtype, std::move(*entry.shape),
                           data.subspan(begin, end - begin)};
}

// The tensors must tile the data section: no overlap, no hole, nothing after the last.
Status check_tiling(std::vector<SafetensorsTensor>& tensors, std::span<const std::byte> data, std::string_view file) {
  std::sort(tensors.begin(), tensors.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  size_t covered = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    const size_t begin = static_cast<size_t>(tensor.bytes.data() - data.data());
    if (begin != covered) {
      return make_error(
          ErrorCode::malformed,
          fmt::format("{}: tensor {} {} (starts at {}, expected {})", file, printable(tensor.name),
                      begin < covered ? "overlaps the one before it" : "leaves a hole before it", begin, covered));
    }
    covered += tensor.bytes.size();
  }
  if (covered != data.size()) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{}: {} bytes follow the last tensor", file, data.size() - covered));
  }
  return ok_status();
}

uint64_t claimed_length(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return length;
}

// The header's text, after checks of the length field against the file and the limit.
Result<std::string_view> header_text(std::span<const std::byte> bytes, std::string_view file) {
  const auto fail = [&](const std::string& what) {
    return make_error(ErrorCode::malformed, fmt::format("{}: not a safetensors file: {}", file, what));
  };
  const bool opens_header = bytes.size() > kLengthBytes && bytes[kLengthBytes] == std::byte{'{'};
  // A header of 640 bytes starts like a pickle, so the brace decides first.
  if (!opens_header) RETURN_IF_ERROR(refuse_pickle(bytes, file));
  if (bytes.size() < kLengthBytes) return fail(fmt::format("{} bytes are too few for a header", bytes.size()));
  const uint64_t length = claimed_length(bytes);
  if (length > Limits::kMaxHeaderBytes) {
    return fail(fmt::format("its header claims {} bytes, the limit is {}", length, Limits::kMaxHeaderBytes));
  }
  if (length > bytes.size() - kLengthBytes) {
    return fail(fmt::format("its header claims {} bytes, the file has {} after the length", length,
                            bytes.size() - kLengthBytes));
  }
  if (!opens_header || length == 0) return fail("its header does not start with '{'");
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
}

}  // namespace

int64_t SafetensorsTensor::num_elements() const { return static_cast<int64_t>(bytes.size() / dtype_size(dtype)); }

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, std::string_view file) {
  ASSIGN_OR_RETURN(const std::string_view header, header_text(bytes, file));
  HeaderReader reader;
  if (!json::sax_parse(header.begin(), header.end(), &reader)) return reader.error(file);

  const size_t data_start = kLengthBytes + header.size();
  SafetensorsFile result;
  result.metadata_ = std::move(reader.metadata);
  result.tensors_.reserve(reader.entries.size());
  for (HeaderEntry& entry : reader.entries) {
    ASSIGN_OR_RETURN(SafetensorsTensor tensor, place_tensor(entry, bytes, data_start, file));
    result.tensors_.push_back(std::move(tensor));
  }
  RETURN_IF_ERROR(check_tiling(result.tensors_, bytes.subspan(data_start), file));

  const auto by_name = [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name < b.name; };
  std::sort(result.tensors_.begin(), result.tensors_.end(), by_name);
  for (size_t i = 1; i < result.tensors_.size(); ++i) {
    if (result.tensors_[i].name == result.tensors_[i - 1].name) {
      return make_error(ErrorCode::malformed,
                        fmt::format("{}: tensor {} appears twice", file, printable(result.tensors_[i].name)));
    }
  }
  return result;
}

size_t SafetensorsFile::header_size(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) return bytes.size();
  const uint64_t length = std::min<uint64_t>(claimed_length(bytes), Limits::kMaxHeaderBytes);
  return std::min<size_t>(bytes.size(), kLengthBytes + static_cast<size_t>(length) + 1);
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const SafetensorsTensor& tensor, std::string_view key) { return tensor.name < key; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

}  // namespace inferneo
