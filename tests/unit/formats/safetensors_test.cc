#include "formats/safetensors.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "safetensors_builder.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using testing::safetensors_bytes;

Error parse_error(const std::vector<std::byte>& bytes) {
  const Result<SafetensorsFile> file = SafetensorsFile::parse(bytes, "w.safetensors");
  EXPECT_FALSE(file.ok());
  return file.ok() ? Error{} : file.error();
}

// A header with one tensor of four f32.
std::string one_tensor(const std::string& body) { return R"({"a":{)" + body + "}}"; }

TEST(SafetensorsTest, ReadsTensorsAndMetadata) {
  const auto bytes = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"c":{"dtype":"I64","shape":[0,5],"data_offsets":[20,20]},)"
      R"("s":{"dtype":"F32","shape":[],"data_offsets":[20,24]}})",
      24);
  Result<SafetensorsFile> file = SafetensorsFile::parse(bytes, "w.safetensors");
  ASSERT_TRUE(file.ok()) << file.error().message;
  ASSERT_EQ(file->tensors().size(), 4U);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  const SafetensorsTensor* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::bf16);
  EXPECT_EQ(b->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(b->num_elements(), 6);
  EXPECT_EQ(b->bytes.data(), bytes.data() + bytes.size() - 24 + 8);
  EXPECT_EQ(b->bytes.size(), 12U);
  EXPECT_EQ(b->bytes[0], std::byte{9});
  EXPECT_EQ(file->find("s")->num_elements(), 1);
  EXPECT_EQ(file->find("c")->num_elements(), 0);
  EXPECT_EQ(file->find("missing"), nullptr);
}

TEST(SafetensorsTest, AnEmptyHeaderIsAnEmptyFile) {
  const auto bytes = safetensors_bytes("{}", 0);
  EXPECT_TRUE(SafetensorsFile::parse(bytes, "f").ok());
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  const auto bytes = safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", 16);
  for (size_t length = 0; length < bytes.size(); ++length) {
    const Result<SafetensorsFile> file = SafetensorsFile::parse(std::span(bytes).first(length), "f");
    ASSERT_FALSE(file.ok()) << length;
    EXPECT_EQ(file.error().code, ErrorCode::malformed) << length;
  }
}

TEST(SafetensorsTest, HeaderLengths) {
  const std::string header = "{}      ";
  for (const uint64_t claimed : {uint64_t{0}, uint64_t{9}, uint64_t{100'000'001}, uint64_t{1} << 63, UINT64_MAX}) {
    EXPECT_EQ(parse_error(safetensors_bytes(header, 0, claimed)).code, ErrorCode::malformed) << claimed;
  }
}

struct BadHeader {
  const char* header;
  const char* says;
};

class BadHeaderTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsMalformedAndNamesTheFile) {
  const Error error = parse_error(safetensors_bytes(GetParam().header, 16));
  EXPECT_EQ(error.code, ErrorCode::malformed) << error.message;
  EXPECT_THAT(error.message, HasSubstr(GetParam().says));
  EXPECT_THAT(error.message, HasSubstr("w.safetensors: "));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, BadHeaderTest,
    ::testing::Values(
        BadHeader{R"([])", "does not start"}, BadHeader{R"( {})", "does not start"},
        BadHeader{R"({"a")", "not valid JSON"}, BadHeader{R"({} {})", "not valid JSON"},
        BadHeader{R"({"a":1})", "a number where"}, BadHeader{R"({"a":null})", "null where"},
        BadHeader{R"({"a":[1]})", "an array where"}, BadHeader{R"({"a":"x"})", "a string where"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4]}})", "needs dtype, shape and two data_offsets"},
        BadHeader{R"({"a":{"dtype":"F32","data_offsets":[0,16]}})", "needs dtype"},
        BadHeader{R"({"a":{"shape":[4],"data_offsets":[0,16]}})", "needs dtype"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}})", "needs dtype"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16,16]}})", "a number where"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[[4]],"data_offsets":[0,16]}})", "an array where"},
        BadHeader{R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,16]}})", "a number where"},
        BadHeader{R"({"a":{"dtype":{"x":1},"shape":[4],"data_offsets":[0,16]}})", "an object where"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", "a negative number"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})", "a fraction"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,16]}})",
                  "a fraction or huge"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,16]}})", "2^63"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,16]}})", "more than 2^63"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "more than 2^63"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}})",
                  "more than 16 dimensions"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})", "spans 16 bytes"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}})", "outside the 16 bytes"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", "outside the 16 bytes"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[18446744073709551600,18446744073709551615]}})",
                  "outside the 16 bytes"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", "4 bytes follow the last tensor"},
        BadHeader{R"({})", "16 bytes follow the last tensor"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})", "leaves a hole"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
                  R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                  "overlaps"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                  R"("b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
                  "overlaps"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                  R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                  "appears twice"},
        BadHeader{R"({"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "dtype twice"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[],"shape":[4],"data_offsets":[0,16]}})", "shape twice"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[],"data_offsets":[0,16]}})", "data_offsets twice"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1}})", "unknown field"},
        BadHeader{R"({"":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "is empty"},
        BadHeader{"{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "control characters"},
        BadHeader{"{\"a\xff\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "not valid JSON"},
        BadHeader{R"({"__metadata__":{"a":1}})", "strings only"},
        BadHeader{R"({"__metadata__":{"a":{}}})", "strings only"},
        BadHeader{R"({"__metadata__":{"a":"1","a":"2"}})", "twice"},
        BadHeader{R"({"__metadata__":{},"__metadata__":{}})", "twice"},
        BadHeader{R"({"__metadata__":"x"})", "a string where"}));

TEST(SafetensorsTest, UnknownElementTypesAreUnsupportedByName) {
  const Error error =
      parse_error(safetensors_bytes(one_tensor(R"("dtype":"F4","shape":[4],"data_offsets":[0,16])"), 16));
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, HasSubstr("\"F4\""));
  EXPECT_THAT(error.message, HasSubstr("\"a\""));
}

TEST(SafetensorsTest, UnalignedTensorsAreRefusedWithTheWayOut) {
  const Error error = parse_error(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                                                    5));
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, HasSubstr("save the file again"));
}

TEST(SafetensorsTest, PicklesAreRefusedWithTheWayOut) {
  for (const std::string& magic : {std::string("\x80\x02}q\x00(X", 7), std::string("\x80\x05\x95", 3),
                                   "PK\x03\x04" + std::string(26, '\0') + "archive/data.pkl",
                                   std::string(257, 'x') + "ustar" + std::string(250, '\0')}) {
    const Error error = parse_error({reinterpret_cast<const std::byte*>(magic.data()),
                                     reinterpret_cast<const std::byte*>(magic.data()) + magic.size()});
    EXPECT_EQ(error.code, ErrorCode::refused) << error.message;
    EXPECT_THAT(error.message, HasSubstr("convert the model to safetensors"));
  }
}

// 640 = 0x280: the file starts with the bytes 80 02, like a pickle of protocol 2.
TEST(SafetensorsTest, AHeaderOf640BytesIsNotAPickle) {
  std::string header = R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
  header.resize(640, ' ');
  const auto bytes = safetensors_bytes(header, 16, header.size());
  ASSERT_EQ(bytes[0], std::byte{0x80});
  EXPECT_TRUE(SafetensorsFile::parse(bytes, "f").ok());
}

TEST(SafetensorsTest, AMillionEntriesAreRefusedEarly) {
  std::string header = "{";
  for (int i = 0; i < 1'000'000; ++i) {
    header += fmt::format("{}\"t{}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", i == 0 ? "" : ",", i);
  }
  header += "}";
  EXPECT_THAT(parse_error(safetensors_bytes(header, 0)).message, HasSubstr("more than 262144 tensors"));
  std::string metadata = R"({"__metadata__":{)";
  for (int i = 0; i < 5000; ++i) metadata += fmt::format("{}\"k{}\":\"\"", i == 0 ? "" : ",", i);
  metadata += "}}";
  EXPECT_THAT(parse_error(safetensors_bytes(metadata, 0)).message, HasSubstr("more than 4096 entries"));
}

TEST(SafetensorsTest, DeepNestingDoesNotExhaustTheStack) {
  const Error error = parse_error(safetensors_bytes(R"({"a":)" + std::string(5'000'000, '['), 0));
  EXPECT_EQ(error.code, ErrorCode::malformed);
}

}  // namespace
}  // namespace inferneo
