#include "models/onnx_convert/weight_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>

#include "models/onnx_convert/block_quantizer.h"
#include "models/rope.h"
#include "models/transformers/bound_tensors.h"

namespace inferneo {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 20;  // of a matrix, computed by one thread at a time

float element(const kernels::WeightView& view, int64_t at) {
  switch (view.dtype) {
    case DType::bf16:
      return bf16_to_f32(static_cast<const uint16_t*>(view.data)[at]);
    case DType::f16:
      return f16_to_f32(static_cast<const uint16_t*>(view.data)[at]);
    default:
      return static_cast<const float*>(view.data)[at];
  }
}

void read_columns(const kernels::WeightView& view, int64_t row, int64_t begin, int64_t end, float* out) {
  int64_t at = row * view.row_stride + begin * view.col_stride;
  if (view.dtype == DType::bf16 && view.col_stride == 1) {
    const auto* from = static_cast<const uint16_t*>(view.data) + at;
    for (int64_t i = 0; i < end - begin; ++i) out[i] = bf16_to_f32(from[i]);
    return;
  }
  for (int64_t c = begin; c < end; ++c, at += view.col_stride) *out++ = element(view, at);
}

// Values on their way to the file in one of the two float types; remembers whether one did not fit.
class FloatBuffer {
 public:
  FloatBuffer(OnnxType type, size_t count) : half_(type == OnnxType::f16), bytes_(count * (half_ ? 2 : 4)) {}

  void put(size_t i, float value) {
    if (half_) {
      const uint16_t bits = f32_to_f16(value);
      fits_ = fits_ && (bits & 0x7c00U) != 0x7c00U;
      std::memcpy(bytes_.data() + 2 * i, &bits, sizeof(bits));
    } else {
      std::memcpy(bytes_.data() + 4 * i, &value, sizeof(value));
    }
  }
  bool fits() const { return fits_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  size_t element_size() const { return half_ ? 2 : 4; }

 private:
  bool half_;
  bool fits_ = true;
  std::vector<std::byte> bytes_;
};

// Numbers of 4 or 8 bits; two of 4 share a byte, the first one the lower half.
class IntegerBuffer {
 public:
  IntegerBuffer(int bits, size_t count, uint8_t fill = 0) : bits_(bits), bytes_(bits == 4 ? (count + 1) / 2 : count) {
    for (size_t i = 0; fill != 0 && i < count; ++i) put(i, fill);
  }
  void put(size_t i, uint8_t value) {
    if (bits_ == 8) {
      bytes_[i] = static_cast<std::byte>(value);
      return;
    }
    std::byte& byte = bytes_[i / 2];
    const auto nibble = static_cast<std::byte>(value);
    byte = i % 2 == 0 ? (byte & std::byte{0xf0}) | nibble : (byte & std::byte{0x0f}) | nibble << 4;
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  int bits_;
  std::vector<std::byte> bytes_;
};

// One job, cut into chunks that threads take by turns.
class JobWriter {
 public:
  JobWriter(const WeightSource& source, const WeightJob& job, const DataFile& file)
      : source_(source), job_(job), file_(file) {
    int64_t first = 0;
    for (const size_t piece : job.pieces) {
      const TensorBinding& binding = source.spec.tensors[piece];
      pieces_.push_back({&binding, source.bound[piece], source_view(binding, *source.bound[piece]), first});
      first += binding.rows;
    }
  }

  Status run(ThreadPool::Client& turns) {
    const int64_t chunks = plan();
    {
      // A turn per job: models that serve go on serving.
      ThreadPool::Session session(turns);
      session.for_chunks(chunks, [&](int64_t chunk, int) {
        if (!stopped_) note(write_chunk(chunk * step_, std::min(extent_, (chunk + 1) * step_)));
      });
    }
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  struct Piece {
    const TensorBinding* binding;
    const SafetensorsTensor* tensor;
    kernels::WeightView view;
    int64_t first;  // of its rows among the job's
  };

  // What is cut: rows of a matrix, or its columns where the file has them first.
  int64_t plan() {
    switch (job_.form) {
      case WeightJob::Form::rows:
      case WeightJob::Form::blocks:
      case WeightJob::Form::rope:
        extent_ = job_.rows;
        step_ = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, job_.cols));
        break;
      case WeightJob::Form::columns:
        extent_ = job_.cols;
        step_ = std::max<int64_t>(1, kChunkElements / job_.rows);
        break;
      case WeightJob::Form::block_columns:
        // In pairs of blocks: a byte of two 4-bit numbers never belongs to two chunks.
        extent_ = job_.blocks();
        step_ = std::max<int64_t>(1, kChunkElements / (job_.rows * job_.block) / 2) * 2;
        break;
      case WeightJob::Form::vector:
        extent_ = 1;
        step_ = 1;
        break;
    }
    return (extent_ + step_ - 1) / step_;
  }

  Status write_chunk(int64_t begin, int64_t end) const {
    switch (job_.form) {
      case WeightJob::Form::rows:
        return write_rows(begin, end);
      case WeightJob::Form::columns:
        return write_columns(begin, end);
      case WeightJob::Form::blocks:
        return write_blocks(begin, end);
      case WeightJob::Form::block_columns:
        return write_block_columns(begin, end);
      case WeightJob::Form::vector:
        return write_vector();
      case WeightJob::Form::rope:
        break;
    }
    return write_rope(begin, end);
  }

  const Piece& piece_of(int64_t row) const {
    size_t i = pieces_.size() - 1;
    while (pieces_[i].first > row) --i;
    return pieces_[i];
  }
  // Columns [begin, end) of a row of the stack.
  const Piece& read(int64_t row, int64_t begin, int64_t end, float* out) const {
    const Piece& piece = piece_of(row);
    read_columns(piece.view, piece.binding->row_begin + row - piece.first, begin, end, out);
    return piece;
  }

  Error does_not_fit(const Piece& piece) const {
    const bool blocks = job_.bits != 0;
    return make_error(ErrorCode::unsupported,
                      fmt::format("tensor {} has values that {} cannot hold; convert with --precision f32",
                                  piece.tensor->name, blocks ? fmt::format("int{}", job_.bits) : std::string("f16")),
                      "precision");
  }

  Status put(const OnnxTensor::Range& range, uint64_t at, std::span<const std::byte> bytes) const {
    INFERNEO_CHECK(at + bytes.size() <= range.bytes, "a weight beyond its range of the data file");
    return file_.write(range.offset + at, bytes);
  }

  Status write_rows(int64_t begin, int64_t end) const {
    FloatBuffer out(job_.type, static_cast<size_t>((end - begin) * job_.cols));
    std::vector<float> row(static_cast<size_t>(job_.cols));
    for (int64_t r = begin; r < end; ++r) {
      const Piece& piece = read(r, 0, job_.cols, row.data());
      const auto at = static_cast<size_t>((r - begin) * job_.cols);
      for (size_t c = 0; c < row.size(); ++c) out.put(at + c, row[c]);
      if (!out.fits()) return does_not_fit(piece);
    }
    return put(job_.values, static_cast<uint64_t>(begin * job_.cols) * out.element_size(), out.bytes());
  }

  Status write_columns(int64_t begin, int64_t end) const {
    FloatBuffer out(job_.type, static_cast<size_t>((end - begin) * job_.rows));
    std::vector<float> part(static_cast<size_t>(end - begin));
    for (int64_t r = 0; r < job_.rows; ++r) {
      const Piece& piece = read(r, begin, end, part.data());
      for (size_t c = 0; c < part.size(); ++c)
        out.put(c * static_cast<size_t>(job_.rows) + static_cast<size_t>(r), part[c]);
      if (!out.fits()) return does_not_fit(piece);
    }
    return put(job_.values, static_cast<uint64_t>(begin * job_.rows) * out.element_size(), out.bytes());
  }

  BlockScale quantize(std::span<const float> values, uint8_t* q) const {
    const bool half = job_.type == OnnxType::f16;
    return job_.bits == 4 ? quantize_block4(values, half, q) : quantize_block8(values, half, q);
  }

  Status write_blocks(int64_t begin, int64_t end) const {
    const int64_t blocks = job_.blocks();
    const auto rows = static_cast<size_t>(end - begin);
    const auto padded = static_cast<size_t>(blocks * job_.block);
    const size_t pairs = static_cast<size_t>(blocks + 1) / 2 * 2;  // zero points of a row fill whole bytes
    const auto middle = static_cast<uint8_t>(1 << (job_.bits - 1));
    IntegerBuffer integers(job_.bits, rows * padded, middle);
    IntegerBuffer zero_points(4, rows * pairs, job_.bits == 4 ? middle : uint8_t{0});
    FloatBuffer scales(job_.type, rows * static_cast<size_t>(blocks));
    std::vector<float> row(static_cast<size_t>(job_.cols));
    std::array<uint8_t, kMaxQuantBlock> q{};
    for (size_t r = 0; r < rows; ++r) {
      const Piece& piece = read(begin + static_cast<int64_t>(r), 0, job_.cols, row.data());
      for (size_t b = 0; b < static_cast<size_t>(blocks); ++b) {
        const size_t first = b * static_cast<size_t>(job_.block);
        const size_t count = std::min(static_cast<size_t>(job_.block), row.size() - first);
        const BlockScale scale = quantize(std::span(row).subspan(first, count), q.data());
        if (!scale.finite) return does_not_fit(piece);
        // What pads a block of 4 bits to its size is zero, too.
        for (size_t i = 0; i < static_cast<size_t>(job_.block); ++i) {
          integers.put(r * padded + first + i, i < count ? q[i] : scale.zero_point);
        }
        scales.put(r * static_cast<size_t>(blocks) + b, scale.scale);
        zero_points.put(r * pairs + b, scale.zero_point & 0x0fU);
      }
    }
    const auto row_begin = static_cast<uint64_t>(begin);
    RETURN_IF_ERROR(put(job_.values, row_begin * padded * static_cast<uint64_t>(job_.bits) / 8, integers.bytes()));
    RETURN_IF_ERROR(
        put(job_.scales, row_begin * static_cast<uint64_t>(blocks) * scales.element_size(), scales.bytes()));
    if (job_.zero_points.bytes == 0) return ok_status();
    return put(job_.zero_points, row_begin * pairs / 2, zero_points.bytes());
  }

  // [begin, end) in blocks.
  Status write_block_columns(int64_t begin, int64_t end) const {
    const int64_t first_col = begin * job_.block;
    const int64_t last_col = std::min(job_.cols, end * job_.block);
    const auto rows = static_cast<size_t>(job_.rows);
    IntegerBuffer integers(job_.bits, static_cast<size_t>(last_col - first_col) * rows);
    IntegerBuffer zero_points(job_.bits, static_cast<size_t>(end - begin) * rows);
    FloatBuffer scales(job_.type, static_cast<size_t>(end - begin) * rows);
    std::vector<float> part(static_cast<size_t>(last_col - first_col));
    std::array<uint8_t, kMaxQuantBlock> q{};
    // DequantizeLinear of 8 bits is signed, with zero points of zero.
    const uint8_t shift = job_.bits == 8 ? 128 : 0;
    for (size_t r = 0; r < rows; ++r) {
      const Piece& piece = read(static_cast<int64_t>(r), first_col, last_col, part.data());
      for (size_t first = 0, b = 0; first < part.size(); first += static_cast<size_t>(job_.block), ++b) {
        const size_t count = std::min(static_cast<size_t>(job_.block), part.size() - first);
        const BlockScale scale = quantize(std::span(part).subspan(first, count), q.data());
        if (!scale.finite) return does_not_fit(piece);
        for (size_t i = 0; i < count; ++i) {
          integers.put((first + i) * rows + r, static_cast<uint8_t>(q[i] - shift));
        }
        scales.put(b * rows + r, scale.scale);
        zero_points.put(b * rows + r, static_cast<uint8_t>(scale.zero_point - shift));
      }
    }
    const uint64_t at = static_cast<uint64_t>(first_col) * rows;
    const uint64_t block_at = static_cast<uint64_t>(begin) * rows;
    RETURN_IF_ERROR(put(job_.values, at * static_cast<uint64_t>(job_.bits) / 8, integers.bytes()));
    RETURN_IF_ERROR(put(job_.scales, block_at * scales.element_size(), scales.bytes()));
    if (job_.zero_points.bytes == 0) return ok_status();
    return put(job_.zero_points, block_at * static_cast<uint64_t>(job_.bits) / 8, zero_points.bytes());
  }

  Status write_vector() const {
    FloatBuffer out(job_.type, static_cast<size_t>(job_.rows));
    for (const Piece& piece : pieces_) {
      for (int64_t i = 0; i < piece.binding->rows; ++i) {
        const float value = read_element(*piece.tensor, piece.binding->row_begin + i) + job_.offset;
        out.put(static_cast<size_t>(piece.first + i), value);
      }
      if (!out.fits()) return does_not_fit(piece);
    }
    return put(job_.values, 0, out.bytes());
  }

  Status write_rope(int64_t begin, int64_t end) const {
    const RopeFrequencies rope(source_.spec.ropes[job_.rope], source_.max_positions);
    const auto half = static_cast<size_t>(job_.cols);
    const auto count = static_cast<size_t>(end - begin) * half;
    FloatBuffer cosines(job_.type, count);
    FloatBuffer sines(job_.type, count);
    std::vector<float> c(half);
    std::vector<float> s(half);
    for (int64_t position = begin; position < end; ++position) {
      rope.fill(static_cast<int32_t>(position), c, s);
      for (size_t i = 0; i < half; ++i) {
        const size_t at = static_cast<size_t>(position - begin) * half + i;
        cosines.put(at, c[i]);
        sines.put(at, s[i]);
      }
    }
    const uint64_t at = static_cast<uint64_t>(begin) * half * cosines.element_size();
    RETURN_IF_ERROR(put(job_.values, at, cosines.bytes()));
    return put(job_.scales, at, sines.bytes());
  }

  void note(Status status) {
    if (status.ok()) return;
    const std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = std::move(status);
    stopped_ = true;
  }

  const WeightSource& source_;
  const WeightJob& job_;
  const DataFile& file_;
  std::vector<Piece> pieces_;
  int64_t extent_ = 0;
  int64_t step_ = 1;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  Status failure_;
};

}  // namespace

Status write_weights(const WeightSource& source, const std::vector<WeightJob>& jobs, const DataFile& file,
                     ThreadPool& pool, const WriteProgress& progress) {
  uint64_t total = 0;
  uint64_t done = 0;
  const auto bytes_of = [](const WeightJob& job) {
    return job.values.bytes + job.scales.bytes + job.zero_points.bytes;
  };
  for (const WeightJob& job : jobs) total += bytes_of(job);
  ThreadPool::Client turns(pool);
  for (const WeightJob& job : jobs) {
    RETURN_IF_ERROR(JobWriter(source, job, file).run(turns));
    for (const size_t piece : job.pieces) source.checkpoint.forget(*source.bound[piece]);
    if (source.checkpoint.truncated()) {
      return make_error(ErrorCode::malformed,
                        "a weight file was cut short while it was being read; convert the model again once its files "
                        "are complete");
    }
    done += bytes_of(job);
    if (progress) RETURN_IF_ERROR(progress(done, total));
  }
  return ok_status();
}

}  // namespace inferneo
