// Heads and bodies from bytes, whole and cut at every place.
#include <gtest/gtest.h>

#include "server/body_decoder.h"
#include "server/head_parser.h"

namespace inferneo {
namespace {

struct ParsedHead {
  HeadParser::State state = HeadParser::State::need_more;
  HttpHead head;
  int status = 0;
  std::string rest;
};

ParsedHead parse_in_pieces(std::string_view bytes, size_t piece) {
  HeadParser parser(1024);
  ParsedHead out;
  for (size_t at = 0; at < bytes.size() && out.state == HeadParser::State::need_more; at += piece) {
    out.rest += bytes.substr(at, piece);
    out.state = parser.parse(out.rest);
  }
  out.head = parser.head();
  out.status = parser.error().status;
  return out;
}

TEST(HeadParser, ReadsTheSameHeadHoweverItIsCut) {
  constexpr std::string_view kBytes =
      "POST /v1/models?x=1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: r1\r\nContent-Length: 7\r\n\r\n";
  for (size_t piece = 1; piece <= kBytes.size(); ++piece) {
    const ParsedHead parsed = parse_in_pieces(kBytes, piece);
    ASSERT_EQ(parsed.state, HeadParser::State::done) << piece;
    EXPECT_EQ(parsed.head.method, Method::post);
    EXPECT_EQ(parsed.head.path, "/v1/models");
    EXPECT_EQ(parsed.head.query, "x=1");
    EXPECT_EQ(*parsed.head.header("x-request-id"), "r1");
    EXPECT_EQ(parsed.head.content_length, 7u);
    EXPECT_EQ(parsed.rest, "");
  }
}

TEST(HeadParser, LeavesWhatFollowsTheHead) {
  HeadParser parser(1024);
  std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n\r\nNEXT";
  EXPECT_EQ(parser.parse(bytes), HeadParser::State::done);
  EXPECT_EQ(bytes, "NEXT");
}

TEST(HeadParser, RefusesWhatCouldBeReadInTwoWays) {
  struct Row {
    const char* what;
    std::string bytes;
    int status;
  };
  const std::vector<Row> rows = {
      {"bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"bare LF in a later line", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
      {"NUL", std::string("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 29), 400},
      {"lengths that differ", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {"the same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
      {"a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400},
      {"a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
      {"a length of 2^64", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},
      {"CL and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"TE and CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400},
      {"another coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400},
      {"chunked twice",
       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400},
      {"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"no version", "GET /\r\nHost: a\r\n\r\n", 400},
      {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"an unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417},
      {"an endless line", "GET /" + std::string(2000, 'a'), 431},
      {"too many fields",
       "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(500, 'x') + ": 1\r\n" + std::string(500, 'y') + ": 1\r\n\r\n",
       431},
  };
  for (const Row& row : rows) {
    for (const size_t piece : {size_t{1}, size_t{7}, row.bytes.size()}) {
      const ParsedHead parsed = parse_in_pieces(row.bytes, piece);
      EXPECT_EQ(parsed.state, HeadParser::State::error) << row.what << " in pieces of " << piece;
      EXPECT_EQ(parsed.status, row.status) << row.what << " in pieces of " << piece;
    }
  }
}

struct ParsedBody {
  BodyDecoder::State state = BodyDecoder::State::need_more;
  std::string body;
  int status = 0;
  std::string rest;
};

ParsedBody decode_in_pieces(const HttpHead& head, std::string_view bytes, size_t piece, size_t limit = 64) {
  BodyDecoder decoder(head, limit);
  ParsedBody out;
  out.state = decoder.decode(out.rest);
  for (size_t at = 0; at < bytes.size() && out.state == BodyDecoder::State::need_more; at += piece) {
    out.rest += bytes.substr(at, piece);
    out.state = decoder.decode(out.rest);
  }
  out.body = decoder.take_body();
  out.status = decoder.error().status;
  return out;
}

HttpHead chunked_head() {
  HttpHead head;
  head.chunked = true;
  return head;
}

TEST(BodyDecoder, ReadsTheSameBodyHoweverItIsCut) {
  constexpr std::string_view kBytes = "5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t piece = 1; piece <= kBytes.size(); ++piece) {
    const ParsedBody parsed = decode_in_pieces(chunked_head(), kBytes, piece);
    ASSERT_EQ(parsed.state, BodyDecoder::State::done) << piece;
    EXPECT_EQ(parsed.body, "hello world");
  }
  HttpHead fixed;
  fixed.content_length = 5;
  const ParsedBody parsed = decode_in_pieces(fixed, "helloNEXT", 9);
  EXPECT_EQ(parsed.body, "hello");
  EXPECT_EQ(parsed.rest, "NEXT");
  fixed.content_length = 0;
  EXPECT_EQ(decode_in_pieces(fixed, "", 1).state, BodyDecoder::State::done);
}

TEST(BodyDecoder, RefusesBadChunks) {
  const std::vector<std::pair<std::string, int>> rows = {
      {"-2\r\nab\r\n", 400},
      {"0x2\r\nab\r\n", 400},
      {"zz\r\n", 400},
      {"\r\n", 400},
      {"2\nab\r\n", 400},
      {"2\r\nabc\r\n0\r\n\r\n", 400},
      {"FFFFFFFFFFFFFFFF\r\n", 413},
      {"FFFFFFFFFFFFFFFFF\r\n", 413},
      {"41\r\n", 413},
      {"20\r\n" + std::string(32, 'a') + "\r\n21\r\n", 413},
      {std::string(2000, '1'), 400},
      {"2;" + std::string(2000, 'x'), 400},
      {"0\r\n" +
           [] {
             std::string trailer;
             for (int i = 0; i < 1000; ++i) trailer += "a: bcdefghij\r\n";
             return trailer;
           }(),
       431},
  };
  for (const auto& [bytes, status] : rows) {
    for (const size_t piece : {size_t{1}, bytes.size()}) {
      const ParsedBody parsed = decode_in_pieces(chunked_head(), bytes, piece);
      EXPECT_EQ(parsed.state, BodyDecoder::State::error) << bytes.substr(0, 30);
      EXPECT_EQ(parsed.status, status) << bytes.substr(0, 30);
    }
  }
  HttpHead large;
  large.content_length = UINT64_MAX;
  EXPECT_EQ(decode_in_pieces(large, "", 1).status, 413);
}

}  // namespace
}  // namespace inferneo
