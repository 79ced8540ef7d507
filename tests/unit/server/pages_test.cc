// The dashboard's routes over loopback, and the laws that its files keep.
#include <algorithm>
#include <regex>
#include <set>
#include <string>

#include "server/pages/pages.h"
#include "server_fixture.h"

namespace inferneo {
namespace {

class PagesTest : public ServerFixture {
 protected:
  void start_pages(ServerConfig config = {}) {
    service_ = std::make_shared<ScriptedService>([](const GenerateRequest&) { return script_of({"hello"}); });
    config.port = 0;
    config.io_threads = 1;
    server_ = std::make_unique<Server>(config, service_, metrics_catalogue(), page_routes());
    const Result<uint16_t> port = server_->start();
    ASSERT_TRUE(port.ok()) << port.error().message;
    port_ = *port;
  }

  RawResponse get(std::string_view path, const std::vector<std::string>& headers = {}) {
    return fetch(port_, "GET", path, "", headers).value_or(RawResponse{});
  }
};

std::string url_of(const PageFile& file) { return "/ui/" + std::string(file.path); }

bool ends_with(const PageFile& file, std::string_view ending) { return file.path.ends_with(ending); }

TEST_F(PagesTest, ThePageComesWithItsPolicies) {
  start_pages();
  const RawResponse page = get("/");
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(page.headers.at("x-content-type-options"), "nosniff");
  EXPECT_EQ(page.headers.at("referrer-policy"), "no-referrer");
  EXPECT_EQ(page.headers.at("x-frame-options"), "DENY");
  const std::string& policy = page.headers.at("content-security-policy");
  EXPECT_NE(policy.find("default-src 'none'"), std::string::npos) << policy;
  EXPECT_NE(policy.find("require-trusted-types-for 'script'"), std::string::npos) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  EXPECT_EQ(policy.find("http"), std::string::npos) << policy;
  EXPECT_NE(page.body.find("<title>Inferneo</title>"), std::string::npos);
}

TEST_F(PagesTest, EveryFileIsServedAsWhatItIs) {
  start_pages();
  ASSERT_GT(page_files().size(), 5u);
  for (const PageFile& file : page_files()) {
    const RawResponse response = get(url_of(file));
    EXPECT_EQ(response.status, 200) << file.path;
    EXPECT_EQ(response.body, file.text) << file.path;
    EXPECT_EQ(response.headers.at("etag"), file.etag);
    EXPECT_TRUE(response.headers.contains("content-security-policy")) << file.path;
    EXPECT_NE(response.headers.at("content-type"), "application/octet-stream") << file.path;
  }
}

TEST_F(PagesTest, WhatTheClientHasIsNotSentAgain) {
  start_pages();
  const std::string etag = get("/ui/app/main.js").headers.at("etag");
  for (const std::string& tags : {etag, "W/" + etag, "\"other\", " + etag, std::string("*")}) {
    const RawResponse response = get("/ui/app/main.js", {"If-None-Match: " + tags});
    EXPECT_EQ(response.status, 304) << tags;
    EXPECT_EQ(response.body, "");
    EXPECT_EQ(response.headers.at("etag"), etag);
    EXPECT_FALSE(response.headers.contains("content-length"));
  }
  EXPECT_EQ(get("/ui/app/main.js", {"If-None-Match: \"other\""}).status, 200);
}

TEST_F(PagesTest, AConnectionGoesOnAfterA304) {
  start_pages();
  const std::string etag = get("/").headers.at("etag");
  RawClient client(port_);
  ASSERT_TRUE(client.send(http_request("GET", "/", "", {"If-None-Match: " + etag})));
  ASSERT_EQ(client.read_response().value_or(RawResponse{}).status, 304);
  ASSERT_TRUE(client.send(http_request("GET", "/ui/icon.svg")));
  EXPECT_EQ(client.read_response().value_or(RawResponse{}).headers["content-type"], "image/svg+xml");
}

TEST_F(PagesTest, HeadHasTheLengthAndNoBody) {
  start_pages();
  const auto response = fetch(port_, "HEAD", "/");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->headers.at("content-length"), std::to_string(get("/").body.size()));
  EXPECT_EQ(response->body, "");
}

TEST_F(PagesTest, OtherPathsAreNotThere) {
  start_pages();
  for (const std::string_view path : {"/ui/nothing.js", "/ui/app", "/ui/app/", "/ui/app/main.js/", "/ui/App/main.js"}) {
    EXPECT_EQ(get(path).status, 404) << path;
  }
  EXPECT_EQ(fetch(port_, "POST", "/", "{}").value_or(RawResponse{}).status, 405);
}

TEST_F(PagesTest, NoPathLeadsOutOfTheFolder) {
  start_pages();
  for (const std::string_view path :
       {"/ui/../app/main.js", "/ui/app/../index.html", "/ui/%2e%2e/pages.cc", "/ui/..%2fpages.cc", "/ui//etc/passwd",
        "/ui/%2fetc%2fpasswd", "/ui/pages.h", "/ui/embed.cmake", "/ui/./index.html"}) {
    EXPECT_EQ(get(path).status, 404) << path;
  }
  EXPECT_EQ(get("/ui/%00").status, 400);
}

TEST_F(PagesTest, ThePageAsksForNoKey) {
  ServerConfig config;
  config.api_keys = {"secret"};
  config.admin_keys = {"admin"};
  start_pages(config);
  EXPECT_EQ(get("/").status, 200);
  EXPECT_EQ(get("/ui/css/base.css").status, 200);
  EXPECT_EQ(get("/v1/models").status, 401);
}

TEST(PageRoutes, AnswerWhileModelsAreLoading) {
  for (const Route& route : page_routes()) EXPECT_TRUE(answers_while_starting(route.policy, route.method));
}

// ---- the files themselves

TEST(PageFiles, ReferToNothingOutside) {
  // The namespaces of SVG are names and not addresses.
  const std::regex address(R"((https?:)?//[a-zA-Z0-9.-]+\.[a-z]{2,})");
  for (const PageFile& file : page_files()) {
    const std::string text(file.text);
    for (std::sregex_iterator it(text.begin(), text.end(), address), end; it != end; ++it) {
      EXPECT_EQ(it->str(), "http://www.w3.org") << file.path;
    }
    if (ends_with(file, ".css")) {
      EXPECT_EQ(text.find("url("), std::string::npos) << file.path;
      EXPECT_EQ(text.find("@import"), std::string::npos) << file.path;
    }
  }
}

TEST(PageFiles, TextNeverBecomesMarkupOrCode) {
  const std::regex sink(
      R"(innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|localStorage\.setItem\('key)");
  for (const PageFile& file : page_files()) {
    if (!ends_with(file, ".js")) continue;
    const std::string text(file.text);
    std::smatch found;
    EXPECT_FALSE(std::regex_search(text, found, sink)) << file.path << ": " << found.str();
  }
}

TEST(PageFiles, HaveNoInlineScriptsStylesOrHandlers) {
  for (const PageFile& file : page_files()) {
    if (!ends_with(file, ".html")) continue;
    const std::string text(file.text);
    EXPECT_FALSE(std::regex_search(text, std::regex(R"(\son[a-z]+\s*=|\sstyle\s*=|<style|javascript:)"))) << file.path;
    EXPECT_FALSE(std::regex_search(text, std::regex(R"(<script(?![^>]*\ssrc=)[^>]*>)"))) << file.path;
  }
}

TEST(PageFiles, WhatTheyReferToIsThere) {
  std::set<std::string> known;
  for (const PageFile& file : page_files()) known.insert(url_of(file));
  const std::regex own_url("\"(/ui/[^\"]+)\"");
  const std::regex import(R"(from '\./([^']+)')");
  std::set<std::string> used;
  for (const PageFile& file : page_files()) {
    const std::string text(file.text);
    for (std::sregex_iterator it(text.begin(), text.end(), own_url), end; it != end; ++it) used.insert((*it)[1]);
    for (std::sregex_iterator it(text.begin(), text.end(), import), end; it != end; ++it) {
      used.insert("/ui/app/" + (*it)[1].str());
    }
  }
  for (const std::string& url : used) EXPECT_TRUE(known.contains(url)) << url << " is used and is not there";
  known.erase("/ui/index.html");  // it is "/"
  for (const std::string& url : known) EXPECT_TRUE(used.contains(url)) << url << " is there and is not used";
}

}  // namespace
}  // namespace inferneo
