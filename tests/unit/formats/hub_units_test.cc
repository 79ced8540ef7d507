// The pure parts of downloading: names, addresses, hashes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/hub_blob.h"
#include "formats/hub_cache.h"
#include "formats/hub_files.h"
#include "formats/hub_http.h"

namespace inferneo::hub {
namespace {

using ::testing::ElementsAre;

TEST(HubFiles, PathsOfRepositories) {
  for (const char* good : {"a", "a/b.json", "a b", ".gitattributes", "a/b/c/d"})
    EXPECT_TRUE(is_repository_path(good)) << good;
  for (const std::string bad : {"", "/", "/a", "a/", "a//b", "..", "a/..", "../a", ".", "a/./b", "a\\b", "a\nb"}) {
    EXPECT_FALSE(is_repository_path(bad)) << bad;
  }
  EXPECT_FALSE(is_repository_path(std::string("a\0b", 3)));
  EXPECT_FALSE(is_repository_path(std::string(256, 'a')));
  std::string deep = "a";
  for (int i = 0; i < 16; ++i) deep += "/a";
  EXPECT_FALSE(is_repository_path(deep));
}

TEST(HubFiles, WhatServingNeeds) {
  const std::vector<std::string> listed = {".gitattributes",
                                           "README.md",
                                           "config.json",
                                           "tokenizer.json",
                                           "tokenizer.model",
                                           "tokenizer_config.json",
                                           "chat_template.jinja",
                                           "generation_config.json",
                                           "special_tokens_map.json",
                                           "model.safetensors",
                                           "model.fp16.safetensors",
                                           "pytorch_model.bin",
                                           "onnx/model.onnx",
                                           "original/config.json",
                                           "flax_model.msgpack"};
  EXPECT_THAT(*select_serving_files(listed),
              ElementsAre("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                          "generation_config.json", "special_tokens_map.json", "model.safetensors"));
  EXPECT_THAT(*select_serving_files(std::vector<std::string>{"config.json", "weights.safetensors"}),
              ElementsAre("config.json", "weights.safetensors"));
}

TEST(HubHttp, Origins) {
  EXPECT_EQ(*origin_of("https://Hub.example/x?y"), "https://hub.example:443");
  EXPECT_EQ(*origin_of("http://127.0.0.1:80/"), "http://127.0.0.1:80");
  EXPECT_NE(*origin_of("http://h"), *origin_of("https://h"));
  EXPECT_NE(*origin_of("http://h:1"), *origin_of("http://h:2"));
  for (const char* bad : {"", "h", "/x", "file:///x", "http://", "http://u@h", "http://u:p@h"})
    EXPECT_FALSE(origin_of(bad).ok()) << bad;
}

TEST(HubHttp, Redirects) {
  EXPECT_EQ(*resolve_redirect("https://h/a/b", "/c"), "https://h/c");
  EXPECT_EQ(*resolve_redirect("https://h/a/b", "c?d"), "https://h/a/c?d");
  EXPECT_EQ(*resolve_redirect("https://h/a", "https://other/c"), "https://other/c");
  EXPECT_EQ(*resolve_redirect("http://h/a", "https://h/c"), "https://h/c");
  EXPECT_EQ(*resolve_redirect("https://h/a", "//other/c"), "https://other/c");
  EXPECT_EQ(resolve_redirect("https://h/a", "http://h/c").error().code, ErrorCode::refused) << "no way down";
  EXPECT_EQ(url_encode("refs/pr/1", false), "refs%2Fpr%2F1");
  EXPECT_EQ(url_encode("a b/c%?.json", true), "a%20b/c%25%3F.json");
}

TEST(HubBlob, HashesOfEtags) {
  const std::string sha256(64, 'a');
  const std::string sha1(40, '0');
  EXPECT_EQ(BlobHash::of_etag('"' + sha256 + '"')->kind, BlobHash::Kind::sha256);
  EXPECT_EQ(BlobHash::of_etag("W/\"" + sha1 + '"')->hex, sha1);
  EXPECT_EQ(BlobHash::of_etag(sha1)->kind, BlobHash::Kind::git_sha1);
  for (const std::string& bad : {std::string(), std::string("\""), sha1 + "0", std::string(64, 'g'), "../" + sha1}) {
    EXPECT_EQ(BlobHash::of_etag(bad).error().code, ErrorCode::malformed) << bad;
  }
}

TEST(HubCache, FoldersOfRepositories) {
  EXPECT_EQ(repository_folder("org/name"), "models--org--name");
  EXPECT_EQ(repository_folder("gpt2"), "models--gpt2");
}

}  // namespace
}  // namespace inferneo::hub
