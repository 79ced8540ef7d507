// Row-wise kernels on the device against double precision: lookups, norms, activations, rotary tables, heads' norms
// with rotation and the cache's writes. Tolerances: a few roundings in f32 of what is added up, and that of the
// output's type.
#include "kernel_data.h"
#include "kernels/cpu/reference.h"
#include "kernels/kv_layout.h"
#include "models/rope.h"

namespace inferneo::cuda::testing {
namespace {

class RowKernels : public DeviceTest {};

TEST_F(RowKernels, EmbedLooksUpTokensPositionsAndWhatWasSampled) {
  for (const Elem elem : {Elem::f32, Elem::bf16, Elem::f16}) {
    constexpr int64_t kDim = 300;
    Numbers numbers(3);
    const Rows table = numbers.rows(11, kDim, elem);
    const Rows learned = numbers.rows(9, kDim, elem);
    const Array<uint8_t> table_on(*this, table.bytes);
    const Array<uint8_t> learned_on(*this, learned.bytes);
    // 4; number 2 of what was sampled; nothing valid there; a row that fills the batch
    const Array<int32_t> tokens(*this, std::vector<int32_t>{4, -3, -1, 0});
    const Array<int32_t> sampled(*this, std::vector<int32_t>{-1, 5, 10});
    const Array<int32_t> positions(*this, std::vector<int32_t>{0, 8, 3, -1});
    const Array<float> out(*this, 4 * kDim);
    EmbedArgs args{};
    args.table = table_on.get();
    args.position_table = learned_on.get();
    args.tokens = tokens.get();
    args.sampled = sampled.get();
    args.positions = positions.get();
    args.out = out.get();
    args.dim = kDim;
    args.rows = 4;
    args.vocab = 11;
    args.num_positions = 9;
    args.scale = 2.5F;
    args.elem = args.position_elem = elem;
    Ops on = ops();
    ASSERT_TRUE(on.embed(args).ok());
    const std::vector<float> got = out.download();
    const int64_t rows[4] = {4, 10, 0, 0};
    const int64_t at[4] = {0, 8, 3, 0};
    Worst worst;
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t c = 0; c < kDim; ++c) {
        const double want = 2.5 * table.values[static_cast<size_t>(rows[r] * kDim + c)] +
                            learned.values[static_cast<size_t>(at[r] * kDim + c)];
        worst.add(got[static_cast<size_t>(r * kDim + c)], want, 1e-6, r, c);
      }
    }
    worst.expect("embed");
  }
}

TEST_F(RowKernels, Norms) {
  for (const Norm kind : {Norm::rms, Norm::layer}) {
    for (const Elem elem : {Elem::f32, Elem::bf16, Elem::f16}) {
      for (const int64_t dim : {5, 300, 1027}) {
        constexpr int32_t kRows = 3;
        Numbers numbers(static_cast<uint32_t>(dim));
        const std::vector<float> x = numbers.floats(5 * dim, 3.0);
        const std::vector<float> weight = numbers.floats(dim);
        const std::vector<float> bias = numbers.floats(dim);
        const std::vector<float> before = numbers.floats(kRows * dim);
        const Array<float> x_on(*this, x);
        const Array<float> w_on(*this, weight);
        const Array<float> b_on(*this, bias);
        const Array<int32_t> index(*this, std::vector<int32_t>{4, 0, 2});
        const int64_t stride = padded_cols(dim);
        const Array<uint8_t> out(*this, static_cast<size_t>(kRows * stride * elem_bytes(elem)));
        const Array<float> residual(*this, before);
        NormArgs args{};
        args.x = x_on.get();
        args.x_stride = args.dim = dim;
        args.row_index = index.get();
        args.weight = w_on.get();
        args.bias = kind == Norm::layer ? b_on.get() : nullptr;
        args.out = out.get();
        args.out_stride = args.out_width = stride;
        args.rows = kRows;
        args.eps = 1e-5F;
        args.weight_offset = 1.0F;
        args.kind = kind;
        args.out_elem = elem;
        Ops on = ops();
        ASSERT_TRUE(on.norm(args).ok());
        args.residual = residual.get();
        args.residual_stride = dim;
        args.residual_scale = 0.25F;
        ASSERT_TRUE(on.norm(args).ok());
        const std::vector<uint8_t> got = out.download();
        const std::vector<float> sum = residual.download();
        const int64_t rows[kRows] = {4, 0, 2};
        Worst worst;
        for (int64_t r = 0; r < kRows; ++r) {
          double mean = 0.0;
          double squares = 0.0;
          const float* row = x.data() + rows[r] * dim;
          for (int64_t c = 0; c < dim; ++c) mean += kind == Norm::layer ? row[c] / static_cast<double>(dim) : 0.0;
          for (int64_t c = 0; c < dim; ++c) squares += (row[c] - mean) * (row[c] - mean);
          const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(dim) + 1e-5F);
          for (int64_t c = 0; c < dim; ++c) {
            const double want = (row[c] - mean) * inverse * (weight[static_cast<size_t>(c)] + 1.0) +
                                (kind == Norm::layer ? bias[static_cast<size_t>(c)] : 0.0);
            const double slack = 1e-5 * (1.0 + std::abs(want));
            worst.add(element(got, elem, static_cast<size_t>(r * stride + c)), want,
                      slack + std::abs(want) * rounding_of(elem), r, c);
            worst.add(sum[static_cast<size_t>(r * dim + c)], before[static_cast<size_t>(r * dim + c)] + 0.25 * want,
                      slack, r, c);
          }
          for (int64_t c = dim; c < stride; ++c) {
            EXPECT_EQ(element(got, elem, static_cast<size_t>(r * stride + c)), 0.0) << "padding";
          }
        }
        worst.expect("norm of " + std::to_string(dim));
      }
    }
  }
}

TEST_F(RowKernels, Activations) {
  constexpr int64_t kDim = 299;
  constexpr int32_t kRows = 2;
  Numbers numbers(9);
  const std::vector<float> x = numbers.floats(kRows * 2 * kDim, 6.0);
  const Array<float> x_on(*this, x);
  const int64_t stride = padded_cols(kDim);
  for (const Act kind : {Act::silu, Act::gelu_tanh, Act::gelu_erf, Act::relu}) {
    for (const bool gated : {true, false}) {
      const Array<float> out(*this, static_cast<size_t>(kRows * stride));
      Ops on = ops();
      ASSERT_TRUE(
          on.activation({x_on.get(), 2 * kDim, gated ? kDim : 0, out.get(), stride, kDim, kRows, kind, Elem::f32})
              .ok());
      const std::vector<float> got = out.download();
      Worst worst;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t c = 0; c < kDim; ++c) {
          const double g = x[static_cast<size_t>(r * 2 * kDim + c)];
          double want = 0.0;
          if (kind == Act::silu) want = g / (1.0 + std::exp(-g));
          if (kind == Act::gelu_tanh)
            want = 0.5 * g * (1.0 + std::tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
          if (kind == Act::gelu_erf) want = 0.5 * g * (1.0 + std::erf(g * 0.7071067811865476));
          if (kind == Act::relu) want = std::max(g, 0.0);
          const double up = gated ? x[static_cast<size_t>(r * 2 * kDim + kDim + c)] : 1.0;
          worst.add(got[static_cast<size_t>(r * stride + c)], want * up, 4e-6 * (1.0 + std::abs(up)), r, c);
        }
        for (int64_t c = kDim; c < stride; ++c) EXPECT_EQ(got[static_cast<size_t>(r * stride + c)], 0.0F);
      }
      worst.expect("activation");
    }
  }
}

TEST_F(RowKernels, RopeTablesAreThoseOfTheHost) {
  RopeSpec plain;
  plain.rotary_dim = 24;
  plain.attention_factor = 1.25;
  RopeSpec dynamic = plain;
  dynamic.scaling = RopeScaling::dynamic;
  dynamic.factor = 4.0;
  dynamic.original_max_position = 100;
  const std::vector<int32_t> positions = {0, 1, 99, 100, 101, 900, 40000};
  const Array<int32_t> positions_on(*this, positions);
  for (const RopeSpec& spec : {plain, dynamic}) {
    const RopeFrequencies frequencies(spec, 65536);
    const Array<float> inverse(*this, frequencies.inverse_frequencies());
    const Array<float> cosines(*this, positions.size() * 12);
    const Array<float> sines(*this, positions.size() * 12);
    RopeTableArgs args{};
    args.positions = positions_on.get();
    args.inverse = inverse.get();
    args.cosines = cosines.get();
    args.sines = sines.get();
    args.theta = spec.theta;
    args.factor = spec.factor;
    args.rows = static_cast<int32_t>(positions.size());
    args.half = 12;
    args.dynamic_original_max = frequencies.is_static() ? 0 : spec.original_max_position;
    args.attention_factor = 1.25F;
    Ops on = ops();
    ASSERT_TRUE(on.rope_table(args).ok());
    const std::vector<float> cosine = cosines.download();
    const std::vector<float> sine = sines.download();
    Worst worst;
    for (size_t p = 0; p < positions.size(); ++p) {
      std::vector<float> want_cos(12);
      std::vector<float> want_sin(12);
      frequencies.fill(positions[p], want_cos, want_sin);
      for (size_t c = 0; c < 12; ++c) {
        // A grown base is a power in double precision: its last bit may move the angle by one of its own.
        const double angle = static_cast<double>(positions[p]) * std::exp2(-24) * 4.0;
        worst.add(cosine[p * 12 + c], want_cos[c], 1e-6 + (frequencies.is_static() ? 0.0 : angle),
                  static_cast<int64_t>(p), static_cast<int64_t>(c));
        worst.add(sine[p * 12 + c], want_sin[c], 1e-6 + (frequencies.is_static() ? 0.0 : angle),
                  static_cast<int64_t>(p), static_cast<int64_t>(c));
      }
    }
    worst.expect("rope table");
  }
}

// Norm over heads, partial rotation, keys and values into their blocks, and no other byte of the cache.
TEST_F(RowKernels, HeadsAreNormedRotatedAndWritten) {
  for (const Elem elem : {Elem::bf16, Elem::f32}) {
    for (const Norm kind : {Norm::rms, Norm::layer}) {
      constexpr int32_t kHeads = 3;
      constexpr int32_t kKv = 2;
      constexpr int32_t kDim = 20;
      constexpr int32_t kHalf = 6;
      constexpr int32_t kRows = 4;
      constexpr int64_t kWidth = (kHeads + 2 * kKv) * kDim;
      Numbers numbers(17);
      const KvLayout layout{3, kKv, kDim, 8, elem};
      std::vector<float> qkv = numbers.floats(kRows * kWidth, 2.0);
      const std::vector<float> q_norm = numbers.floats(kDim);
      const std::vector<float> k_norm = numbers.floats(kDim);
      const std::vector<float> cosines = numbers.floats(kRows * kHalf);
      const std::vector<float> sines = numbers.floats(kRows * kHalf);
      // Rows 0 to 2 are tokens 6, 7, 8 of one sequence, whose blocks are 3 and 1; row 3 fills the batch.
      const Array<int32_t> positions(*this, std::vector<int32_t>{6, 7, 8, -1});
      const Array<int32_t> sequence_of(*this, std::vector<int32_t>{0, 0, 0, 0});
      const Array<int32_t> begin(*this, std::vector<int32_t>{1});
      const Array<int32_t> tables(*this, std::vector<int32_t>{99, 3, 1});
      const Array<float> qkv_on(*this, qkv);
      const Array<float> qn(*this, q_norm);
      const Array<float> kn(*this, k_norm);
      const Array<float> cos_on(*this, cosines);
      const Array<float> sin_on(*this, sines);
      const auto plane_bytes = static_cast<size_t>(4 * layout.bytes_per_block());
      const Array<uint8_t> plane(*this, plane_bytes);
      QkvArgs args{};
      args.qkv = qkv_on.get();
      args.stride = kWidth;
      args.q_norm = qn.get();
      args.k_norm = kn.get();
      args.cosines = cos_on.get();
      args.sines = sin_on.get();
      args.batch = {positions.get(), sequence_of.get(), begin.get(), tables.get()};
      args.layout = layout;
      args.plane = plane.get();
      args.layer = 2;
      args.rows = kRows;
      args.num_heads = kHeads;
      args.half = kHalf;
      args.norm_eps = 1e-6F;
      args.norm_offset = 1.0F;
      args.norm_kind = kind;
      Ops on = ops();
      ASSERT_TRUE(on.qkv_post(args).ok());
      const std::vector<float> got = qkv_on.download();
      const std::vector<uint8_t> cache = plane.download();
      std::vector<bool> written(plane_bytes, false);
      Worst worst;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int32_t h = 0; h < kHeads + 2 * kKv; ++h) {
          const float* x = qkv.data() + r * kWidth + h * kDim;
          const bool is_v = h >= kHeads + kKv;
          double mean = 0.0;
          double squares = 0.0;
          for (int c = 0; c < kDim; ++c) mean += kind == Norm::layer ? x[c] / double{kDim} : 0.0;
          for (int c = 0; c < kDim; ++c) squares += (x[c] - mean) * (x[c] - mean);
          const std::vector<float>& norm = h < kHeads ? q_norm : k_norm;
          std::vector<double> y(kDim);
          for (size_t c = 0; c < kDim; ++c) {
            y[c] = is_v ? x[c] : (x[c] - mean) / std::sqrt(squares / kDim + 1e-6) * (norm[c] + 1.0);
          }
          std::vector<double> want = y;
          for (size_t c = 0; !is_v && c < kHalf; ++c) {
            const double cosine = cosines[static_cast<size_t>(r) * kHalf + c];
            const double sine = sines[static_cast<size_t>(r) * kHalf + c];
            want[c] = y[c] * cosine - y[c + kHalf] * sine;
            want[c + kHalf] = y[c + kHalf] * cosine + y[c] * sine;
          }
          for (int32_t c = 0; c < layout.row_elements(); ++c) {
            const double value = c < kDim ? want[static_cast<size_t>(c)] : 0.0;
            if (h < kHeads) {
              if (c < kDim)
                worst.add(got[static_cast<size_t>(r * kWidth + h * kDim + c)], value, 2e-5, r, h * kDim + c);
              continue;
            }
            if (r == 3) continue;
            const int32_t kv_head = is_v ? h - kHeads - kKv : h - kHeads;
            const int64_t block = r < 2 ? 3 : 1;
            const int64_t slot = (6 + r) % 8;
            const int64_t region = is_v ? layout.v_offset(2, kv_head) : layout.k_offset(2, kv_head);
            const auto at = static_cast<size_t>((block * layout.bytes_per_block() + region) / elem_bytes(elem) +
                                                slot * layout.row_elements() + c);
            worst.add(element(cache, elem, at), value, 2e-5 + std::abs(value) * rounding_of(elem), r, h * kDim + c);
            for (int64_t b = 0; b < elem_bytes(elem); ++b)
              written[at * static_cast<size_t>(elem_bytes(elem)) + static_cast<size_t>(b)] = true;
          }
        }
      }
      worst.expect("heads");
      for (size_t b = 0; b < plane_bytes; ++b) {
        if (written[b]) continue;
        ASSERT_EQ(cache[b], 0xff) << "byte " << b << " of the cache was written";
      }
    }
  }
}

// Keys and values of two heads of `dim`, the rows of `qkv` and one more that only fills a batch, into a cache of 8
// bits: the host's codes and scales to the bit, and no other byte.
class ByteRows : public RowKernels {
 protected:
  static constexpr int32_t kKv = 2;
  static constexpr int32_t kBlock = 8;
  static constexpr int32_t kFirst = 6;  // position
  static int64_t width(int32_t dim) { return (1 + 2 * kKv) * int64_t{dim}; }

  void check(DType dtype, int32_t dim, std::vector<float> qkv) {
    const auto rows = static_cast<int32_t>(static_cast<int64_t>(qkv.size()) / width(dim));
    qkv.resize(qkv.size() + static_cast<size_t>(width(dim)), 1.0F);
    std::vector<int32_t> positions;
    for (int32_t r = 0; r < rows; ++r) positions.push_back(kFirst + r);
    positions.push_back(-1);
    std::vector<int32_t> blocks;
    for (int32_t b = (kFirst + rows + kBlock - 1) / kBlock; b > 0; --b) blocks.push_back(b);
    const kernels::KvLayout host_layout{dtype, 1, kKv, dim, kBlock};
    const std::vector<std::byte> host = written_by_host(host_layout, qkv, blocks, rows);
    const KvLayout layout{1, kKv, dim, kBlock, dtype == DType::i8 ? Elem::i8 : Elem::e4m3};
    const std::vector<uint8_t> cache = written_by_device(layout, qkv, positions, blocks);
    std::vector<uint8_t> want(cache.size(), 0xff);
    for (int32_t r = 0; r < rows; ++r) {
      const int64_t block = blocks[static_cast<size_t>((kFirst + r) / kBlock)];
      const int64_t slot = (kFirst + r) % kBlock;
      for (int32_t h = 0; h < 2 * kKv; ++h) {
        const bool is_v = h >= kKv;
        const std::byte* from = host.data() + static_cast<size_t>(block) * host_layout.bytes_per_block() +
                                (is_v ? host_layout.v_offset(0, h - kKv) : host_layout.k_offset(0, h));
        uint8_t* to = want.data() + block * layout.bytes_per_block() +
                      (is_v ? layout.v_offset(0, h - kKv) : layout.k_offset(0, h));
        const auto* scales =
            reinterpret_cast<const float*>(from + (is_v ? host_layout.v_scales() : host_layout.k_scales()));
        reinterpret_cast<float*>(to + layout.scales_at())[slot] = scales[slot];
        for (int32_t d = 0; d < layout.row_elements(); ++d) {
          const int64_t at = is_v ? host_layout.v_index(slot, d) : host_layout.k_index(slot, d);
          to[slot * layout.row_elements() + layout.place_of(d)] = d < dim ? static_cast<uint8_t>(from[at]) : 0;
        }
      }
    }
    for (size_t b = 0; b < cache.size(); ++b) {
      ASSERT_EQ(cache[b], want[b]) << "byte " << b << ", " << dtype_name(dtype) << ", heads of " << dim;
    }
  }

 private:
  static std::vector<std::byte> written_by_host(const kernels::KvLayout& layout, const std::vector<float>& qkv,
                                                const std::vector<int32_t>& blocks, int32_t rows) {
    std::vector<std::byte> plane((blocks.size() + 1) * layout.bytes_per_block(), std::byte{0xff});
    kernels::KvWriteArgs write;
    write.k = qkv.data() + layout.head_dim;
    write.v = write.k + int64_t{kKv} * layout.head_dim;
    write.k_stride = write.v_stride = width(layout.head_dim);
    write.plane = plane.data();
    write.layout = layout;
    for (int32_t h = 0; h < kKv; ++h) kernels::reference::kv_write(write, {blocks.data(), kFirst, 0, rows}, h);
    return plane;
  }
  std::vector<uint8_t> written_by_device(const KvLayout& layout, const std::vector<float>& qkv,
                                         const std::vector<int32_t>& positions, const std::vector<int32_t>& blocks) {
    const Array<int32_t> positions_on(*this, positions);
    const Array<int32_t> sequence_of(*this, std::vector<int32_t>(positions.size(), 0));
    const Array<int32_t> begin(*this, std::vector<int32_t>{0});
    const Array<int32_t> tables(*this, blocks);
    const Array<float> qkv_on(*this, qkv);
    const Array<uint8_t> plane(*this, (blocks.size() + 1) * static_cast<size_t>(layout.bytes_per_block()));
    QkvArgs args{};
    args.qkv = qkv_on.get();
    args.stride = width(layout.head_dim);
    args.batch = {positions_on.get(), sequence_of.get(), begin.get(), tables.get()};
    args.layout = layout;
    args.plane = plane.get();
    args.rows = static_cast<int32_t>(positions.size());
    args.num_heads = 1;
    EXPECT_TRUE(ops().qkv_post(args).ok());
    return plane.download();
  }
};

// A row of zeros, one with a value that is not finite, very small ones, a head that fills no whole chunk.
TEST_F(ByteRows, AreThoseOfTheHost) {
  for (const DType dtype : {DType::i8, DType::f8_e4m3}) {
    for (const int32_t dim : {20, 64}) {
      Numbers numbers(23);
      std::vector<float> qkv = numbers.floats(5 * width(dim), 3.0);
      std::fill_n(qkv.begin() + dim, dim, 0.0F);  // row 0, first key
      qkv[static_cast<size_t>(2 * width(dim) + 3 * dim + 5)] = std::numeric_limits<float>::infinity();
      qkv[static_cast<size_t>(3 * width(dim) + 2 * dim + 1)] = std::numeric_limits<float>::quiet_NaN();
      for (int64_t i = 4 * width(dim); i < 5 * width(dim); ++i) qkv[static_cast<size_t>(i)] *= 0x1p-140F;
      check(dtype, dim, qkv);
    }
  }
}

// Heads whose scale is one, so that codes are those of the values: at, below and above the middle between every two
// neighbouring codes, and the codes themselves.
TEST_F(ByteRows, E4m3RoundsAsTheHost) {
  constexpr int32_t kDim = 64;
  std::vector<float> values;
  for (int code = 0; code < 0x7e; ++code) {
    const float low = e4m3_to_f32(static_cast<uint8_t>(code));
    const float middle = 0.5F * (low + e4m3_to_f32(static_cast<uint8_t>(code + 1)));
    for (const float v : {low, middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 1e3F)}) {
      values.push_back(v);
      values.push_back(-v);
    }
  }
  std::vector<float> qkv;
  for (size_t next = 0; next < values.size();) {
    qkv.resize(qkv.size() + kDim, 0.0F);  // the query
    for (int32_t head = 0; head < 2 * kKv; ++head) {
      qkv.push_back(kLargestE4m3);
      for (int32_t d = 1; d < kDim; ++d, ++next) qkv.push_back(next < values.size() ? values[next] : 0.0F);
    }
  }
  check(DType::f8_e4m3, kDim, qkv);
}

TEST_F(RowKernels, CopiesSoftCapsAndFills) {
  Numbers numbers(1);
  const std::vector<float> x = numbers.floats(4 * 12345, 30.0);
  const Array<float> from(*this, x);
  const Array<float> to(*this, x.size());
  Ops on = ops();
  ASSERT_TRUE(on.copy({from.get(), to.get(), static_cast<int64_t>(x.size() * sizeof(float))}).ok());
  EXPECT_EQ(to.download(), x);
  ASSERT_TRUE(on.softcap({to.get(), 1000, 10.0F}).ok());
  const std::vector<float> capped = to.download();
  for (size_t i = 0; i < 1000; ++i) EXPECT_NEAR(capped[i], 10.0 * std::tanh(x[i] / 10.0), 1e-5);
  EXPECT_EQ(capped[1000], x[1000]);
  ASSERT_TRUE(on.fill({to.get(), 40000, 7, 0.5F, Elem::f32}).ok());
  const std::vector<float> random = to.download();
  double sum = 0.0;
  for (size_t i = 0; i < 40000; ++i) {
    ASSERT_LE(std::abs(random[i]), 0.5F);
    sum += random[i];
  }
  EXPECT_LT(std::abs(sum / 40000), 0.01);
  EXPECT_EQ(random[40000], x[40000]);
}

}  // namespace
}  // namespace inferneo::cuda::testing
