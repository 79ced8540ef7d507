#include "formats/checkpoint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "safetensors_builder.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using testing::safetensors_bytes;
using testing::TempTree;

// A file whose tensors of four bytes have these names.
std::vector<std::byte> shard(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    header += fmt::format("{}\"{}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[{},{}]}}", i == 0 ? "" : ",",
                          names[i], 4 * i, 4 * i + 4);
  }
  return safetensors_bytes(header + "}", 4 * names.size());
}

class CheckpointTest : public ::testing::Test {
 protected:
  Result<Checkpoint> open() {
    Result<ModelDirectory> directory = ModelDirectory::open("m", tree_.root(), {tree_.root()});
    EXPECT_TRUE(directory.ok());
    return Checkpoint::open(ledger_, "m", *directory);
  }
  Error open_error() {
    Result<Checkpoint> checkpoint = open();
    EXPECT_FALSE(checkpoint.ok());
    return checkpoint.ok() ? Error{} : checkpoint.error();
  }
  void write_index(const std::string& map) {
    tree_.write("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":{)" + map + "}}");
  }

  MemoryLedger ledger_{size_t{1} << 30};
  TempTree tree_;
};

TEST_F(CheckpointTest, OneFile) {
  tree_.write("model.safetensors", shard({"b", "a"}));
  {
    Result<Checkpoint> checkpoint = open();
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
    EXPECT_EQ(checkpoint->tensors().size(), 2U);
    EXPECT_EQ(checkpoint->total_bytes(), 8U);
    ASSERT_TRUE(checkpoint->contains("a"));
    EXPECT_EQ(checkpoint->find("a")->bytes[0], std::byte{5});
    EXPECT_EQ(checkpoint->find("c"), nullptr);
    EXPECT_FALSE(checkpoint->truncated());
    EXPECT_GT(ledger_.used(), 0U);
  }
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(CheckpointTest, ViewsSurviveAMove) {
  tree_.write("model.safetensors", shard({"a"}));
  Result<Checkpoint> first = open();
  ASSERT_TRUE(first.ok());
  const SafetensorsTensor* tensor = first->find("a");
  const Checkpoint second = std::move(*first);
  EXPECT_EQ(second.find("a"), tensor);
  EXPECT_EQ(tensor->bytes[0], std::byte{1});
}

TEST_F(CheckpointTest, Shards) {
  tree_.write("model-00001-of-00002.safetensors", shard({"a", "b"}));
  tree_.write("model-00002-of-00002.safetensors", shard({"c"}));
  write_index(R"("a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors",)"
              R"("c":"model-00002-of-00002.safetensors")");
  Result<Checkpoint> checkpoint = open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->tensors().size(), 3U);
  EXPECT_TRUE(checkpoint->contains("c"));
}

TEST_F(CheckpointTest, ShardsMustHoldWhatTheIndexClaims) {
  tree_.write("1.safetensors", shard({"a"}));
  tree_.write("2.safetensors", shard({"b"}));
  write_index(R"("a":"1.safetensors","b":"1.safetensors")");
  EXPECT_THAT(open_error().message, HasSubstr("tensor b is not in 1.safetensors"));
  write_index(R"("a":"1.safetensors","b":"3.safetensors")");
  EXPECT_EQ(open_error().code, ErrorCode::not_found);
  tree_.write("2.safetensors", shard({"a", "b"}));
  write_index(R"("a":"1.safetensors","b":"2.safetensors")");
  EXPECT_THAT(open_error().message, HasSubstr("tensor a is in two shards"));
}

TEST_F(CheckpointTest, ShardsStayInTheDirectory) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\\\b", "a\\u0000b"}) {
    write_index(fmt::format(R"("a":"{}")", name));
    EXPECT_EQ(open_error().code, ErrorCode::refused) << name;
  }
  const TempTree elsewhere;
  elsewhere.write("x.safetensors", shard({"a"}));
  tree_.link(elsewhere.path("x.safetensors"), "x.safetensors");
  write_index(R"("a":"x.safetensors")");
  const Error error = open_error();
  EXPECT_EQ(error.code, ErrorCode::refused);
  EXPECT_THAT(error.message, ::testing::Not(HasSubstr(elsewhere.root())));
}

TEST_F(CheckpointTest, BadIndexes) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"a":1}})",
                           R"({"weight_map":{"a":"1.safetensors","a":"1.safetensors"}})"}) {
    tree_.write("model.safetensors.index.json", text);
    EXPECT_EQ(open_error().code, ErrorCode::malformed) << text;
  }
}

TEST_F(CheckpointTest, AnotherNameServesWhenItIsTheOnlyOne) {
  tree_.write("weights.safetensors", shard({"a"}));
  EXPECT_TRUE(open().ok());
  tree_.write("more.safetensors", shard({"b"}));
  EXPECT_THAT(open_error().message, HasSubstr("no model.safetensors.index.json"));
}

TEST_F(CheckpointTest, PicklesAreRefused) {
  tree_.write("config.json", "{}");
  tree_.write("pytorch_model.bin", "\x80\x02");
  EXPECT_EQ(open_error().code, ErrorCode::refused);
  tree_.write("model.safetensors", std::string_view("\x80\x04\x95 this is a pickle", 20));
  EXPECT_EQ(open_error().code, ErrorCode::refused);
}

TEST_F(CheckpointTest, AnEmptyDirectoryHasNoWeights) { EXPECT_EQ(open_error().code, ErrorCode::not_found); }

TEST_F(CheckpointTest, TheBudgetHolds) {
  tree_.write("model.safetensors", shard({"a"}));
  MemoryLedger tiny(16);
  Result<ModelDirectory> directory = ModelDirectory::open("m", tree_.root(), {tree_.root()});
  Result<Checkpoint> checkpoint = Checkpoint::open(tiny, "m", *directory);
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(tiny.used(), 0U);
}

}  // namespace
}  // namespace inferneo
