// What the ONNX writer puts into its files, byte by byte where a byte can be wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "formats/onnx/data_file.h"
#include "formats/onnx/genai_config.h"
#include "formats/onnx/onnx_proto.h"
#include "formats/onnx/wire_writer.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using testing::TempTree;

std::string bytes_of(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) bytes.push_back(static_cast<char>(value));
  return bytes;
}

TEST(WireWriter, WritesTheThreeWireTypes) {
  WireWriter out;
  out.varint_field(1, 0);
  out.varint_field(1, 127);
  out.varint_field(1, 300);
  EXPECT_EQ(out.bytes(), bytes_of({0x08, 0x00, 0x08, 0x7f, 0x08, 0xac, 0x02}));

  WireWriter negative;
  negative.varint_field(3, -1);
  EXPECT_EQ(negative.bytes(), bytes_of({0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}));

  WireWriter number;
  number.float_field(2, 1.5F);
  EXPECT_EQ(number.bytes(), bytes_of({0x15, 0x00, 0x00, 0xc0, 0x3f}));

  WireWriter text;
  text.bytes_field(16, "ab");  // a field above 15 has a tag of two bytes
  text.optional_bytes_field(17, "");
  EXPECT_EQ(text.bytes(), bytes_of({0x82, 0x01, 0x02, 'a', 'b'}));
}

TEST(WireWriter, LongBytesHaveLongLengths) {
  WireWriter inner;
  inner.bytes_field(1, std::string(200, 'x'));
  WireWriter outer;
  outer.message_field(2, inner);
  EXPECT_EQ(outer.bytes().substr(0, 6), bytes_of({0x12, 0xcb, 0x01, 0x0a, 0xc8, 0x01}));
  EXPECT_EQ(outer.bytes().size(), 206U);
}

TEST(OnnxProto, EncodesAWholeModel) {
  OnnxModel model;
  model.ir_version = 10;
  model.producer_name = "p";
  model.producer_version = "1";
  model.opsets = {{"", 21}, {"d", 1}};
  model.data_file = "f";
  model.graph.name = "g";
  model.graph.nodes.push_back({"Op", "d", "n", {"x", ""}, {"y"}, {{"a", int64_t{2}}, {"s", std::string("t")}}});
  OnnxTensor inside{"c", OnnxType::i64, {1}, std::string(8, '\0'), {}};
  OnnxTensor outside{"w", OnnxType::f16, {2, 3}, {}, OnnxTensor::Range{64, 12}};
  model.graph.initializers = {inside, outside};
  model.graph.inputs = {{"x", OnnxType::i64, {OnnxDim("b"), OnnxDim(int64_t{0})}}};

  const std::string node = bytes_of({0x0a, 1, 'x', 0x0a, 0, 0x12, 1, 'y', 0x1a, 1, 'n', 0x22, 2, 'O', 'p'}) +
                           bytes_of({0x2a, 8, 0x0a, 1, 'a', 0x18, 2, 0xa0, 1, 2}) +       // i, type INT
                           bytes_of({0x2a, 9, 0x0a, 1, 's', 0x22, 1, 't', 0xa0, 1, 3}) +  // s, type STRING
                           bytes_of({0x3a, 1, 'd'});
  const std::string constant = bytes_of({0x08, 1, 0x10, 7, 0x42, 1, 'c', 0x4a, 8}) + std::string(8, '\0');
  const auto entry = [](const std::string& key, const std::string& value) {
    const std::string text =
        bytes_of({0x0a, static_cast<int>(key.size())}) + key + bytes_of({0x12, static_cast<int>(value.size())}) + value;
    return bytes_of({0x6a, static_cast<int>(text.size())}) + text;
  };
  const std::string weight = bytes_of({0x08, 2, 0x08, 3, 0x10, 10, 0x42, 1, 'w'}) + entry("location", "f") +
                             entry("offset", "64") + entry("length", "12") + bytes_of({0x70, 1});
  // A dimension of size zero is written: it is not one of unknown size.
  const std::string input = bytes_of({0x0a, 1, 'x', 0x12, 15, 0x0a, 13, 0x08, 7, 0x12, 9}) +
                            bytes_of({0x0a, 3, 0x12, 1, 'b', 0x0a, 2, 0x08, 0});
  const auto field = [](int tag, const std::string& bytes) {
    return bytes_of({tag, static_cast<int>(bytes.size())}) + bytes;
  };
  const std::string graph =
      field(0x0a, node) + field(0x12, "g") + field(0x2a, constant) + field(0x2a, weight) + field(0x5a, input);
  ASSERT_LT(graph.size(), 16384U);
  const std::string graph_field =
      bytes_of({0x3a, static_cast<int>(graph.size() % 128 + 128), static_cast<int>(graph.size() / 128)}) + graph;
  EXPECT_EQ(encode_onnx(model), bytes_of({0x08, 10, 0x12, 1, 'p', 0x1a, 1, '1'}) + graph_field +
                                    field(0x42, bytes_of({0x10, 21})) + field(0x42, bytes_of({0x0a, 1, 'd', 0x10, 1})));
}

TEST(OnnxProto, CountsBytesOfNarrowTypes) {
  EXPECT_EQ(onnx_bytes(OnnxType::u4, 5), 3U);
  EXPECT_EQ(onnx_bytes(OnnxType::f16, 5), 10U);
  EXPECT_EQ(onnx_bytes(OnnxType::f32, int64_t{1} << 40), uint64_t{1} << 42);
}

TEST(DataFile, LargeTensorsBeginAtPages) {
  DataFilePlan plan;
  EXPECT_EQ(plan.add(1), 0U);
  EXPECT_EQ(plan.add(100), 64U);
  EXPECT_EQ(plan.add(uint64_t{5} << 30), 4096U);
  EXPECT_EQ(plan.add(64), 4096U + (uint64_t{5} << 30));
  EXPECT_EQ(plan.size(), 4096U + (uint64_t{5} << 30) + 64);
}

TEST(DataFile, WritesAnywhereWithinItsSize) {
  TempTree tree;
  auto file = DataFile::create(tree.path("d"), "d", 10);
  ASSERT_TRUE(file.ok()) << file.error().message;
  const std::string text = "xyz";
  ASSERT_TRUE(file->write(7, std::as_bytes(std::span(text))).ok());
  ASSERT_TRUE(file->write(0, std::as_bytes(std::span(text))).ok());
  ASSERT_TRUE(file->finish().ok());
  std::ostringstream content;
  content << std::ifstream(tree.path("d"), std::ios::binary).rdbuf();
  EXPECT_EQ(content.str(), std::string("xyz") + std::string(4, '\0') + "xyz");
  // What is there stays there.
  EXPECT_EQ(DataFile::create(tree.path("d"), "d", 10).error().code, ErrorCode::io_error);
}

TEST(DataFile, SaysAtOnceThatThereIsNoRoom) {
  TempTree tree;
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{1024, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto file = DataFile::create(tree.path("d"), "model.onnx.data", 4096);
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::disk_full);
  EXPECT_THAT(file.error().message, HasSubstr("model.onnx.data"));
}

TEST(GenaiConfig, NamesWhatTheGraphHas) {
  GenaiDecoder decoder{.vocab_size = 151, .context_length = 64, .num_layers = 2, .num_heads = 4, .num_kv_heads = 2};
  GenerationConfig generation;
  generation.eos_token_ids = {2, 5};
  const auto plain = nlohmann::json::parse(genai_config_text(decoder, generation));
  EXPECT_EQ(plain["model"]["vocab_size"], 151);
  EXPECT_EQ(plain["model"]["eos_token_id"], nlohmann::json({2, 5}));
  EXPECT_EQ(plain["model"]["pad_token_id"], 2);
  EXPECT_FALSE(plain["model"].contains("bos_token_id"));
  EXPECT_FALSE(plain["model"]["decoder"]["inputs"].contains("position_ids"));
  EXPECT_EQ(plain["search"]["past_present_share_buffer"], false);
  decoder.position_ids = decoder.shared_cache = true;
  generation.bos_token_id = 1;
  const auto other = nlohmann::json::parse(genai_config_text(decoder, generation));
  EXPECT_EQ(other["model"]["decoder"]["inputs"]["position_ids"], "position_ids");
  EXPECT_EQ(other["model"]["bos_token_id"], 1);
  EXPECT_EQ(other["search"]["past_present_share_buffer"], true);
  EXPECT_EQ(other["search"]["max_length"], 64);
}

}  // namespace
}  // namespace inferneo
