// A hub that fails, lies or attacks: nothing wrong gets a final name, and every error says what to do.
#include <set>

#include "unit/formats/hub_fixture.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ScriptedHub;
namespace fs = std::filesystem;

constexpr auto kHits = [](const auto& request, const char* range) {
  return request.header("range").starts_with(range);
};

TEST_F(HubPullTest, TruncatedAndResetBodiesAreGoneOnWith) {
  for (const auto then : {Reply::Then::close, Reply::Then::reset}) {
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (!is_weights(request) || request.nth % 3 != 0) return;
      reply.send = 7000;
      reply.then = then;
    });
    expect_whole();
    fs::remove(blob());
  }
}

TEST_F(HubPullTest, ServersThatFailAtFirstAreAskedAgain) {
  for (const int status : {503, 429, 408}) {
    // Parts of a file are asked for side by side: each has a first time of its own.
    std::set<std::string> asked;
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (!asked.insert(request.method + request.target + request.header("range")).second) return;
      reply = {.status = status, .headers = {{"Retry-After", "0"}}, .body = "busy"};
    });
    expect_whole();
    fs::remove_all(repository());
  }
}

TEST_F(HubPullTest, AServerThatOnlyFailsIsGivenUp) {
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request) && kHits(request, "bytes=32768-")) reply = {.status = 503, .headers = {}, .body = ""};
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_THAT(last_, AllOf(HasSubstr("model.safetensors"), HasSubstr("5 attempts"), HasSubstr("503"),
                           HasSubstr("goes on there")));
  EXPECT_LE(fs::file_size(incomplete()), 32768U) << "nothing behind a gap";
  EXPECT_GE(fs::file_size(incomplete()), kPart);
  hub_.set_script([&](const Request&, Reply& reply) { reply = {.status = 500, .headers = {}, .body = ""}; });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (request.method == "HEAD") reply = {.status = 500, .headers = {}, .body = ""};
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
}

TEST_F(HubPullTest, AShortAnswerWithoutEndIsGivenUp) {
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request)) reply.send = 0;
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_FALSE(has_blob());
}

TEST_F(HubPullTest, AServerThatAsksForADayIsNotWaitedFor) {
  hub_.set_script([&](const Request&, Reply& reply) {
    reply = {.status = 429, .headers = {{"Retry-After", "86400"}}, .body = ""};
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_THAT(last_, HasSubstr("slow down"));
}

TEST_F(HubPullTest, NobodyThereIsUnavailable) {
  access_.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_THAT(last_, HasSubstr("check the network"));
}

TEST_F(HubPullTest, AWrongHashNeverGetsTheName) {
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request) && kHits(request, "bytes=16384-")) reply.body[5] ^= 1;
  });
  EXPECT_EQ(failure(), ErrorCode::malformed);
  EXPECT_THAT(last_, AllOf(HasSubstr("model.safetensors"), HasSubstr("hash")));
  EXPECT_FALSE(has_blob());
  EXPECT_FALSE(fs::exists(incomplete())) << "of no use";
  EXPECT_FALSE(fs::exists(repository() + "/snapshots/" + kCommit));
  fs::remove_all(repository());
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (request.method == "GET" && request.target.ends_with("config.json")) reply.body[0] = '[';
  });
  EXPECT_EQ(failure(), ErrorCode::malformed);
  EXPECT_FALSE(fs::exists(repository() + "/blobs/" + config_.etag()));
}

TEST_F(HubPullTest, AWrongSizeIsNoticed) {
  const auto with = [&](auto change) {
    hub_.set_script([&, change](const Request& request, Reply& reply) {
      if (is_weights(request)) change(reply);
    });
    EXPECT_EQ(failure(), ErrorCode::malformed) << last_;
    EXPECT_THAT(last_, HasSubstr("not the 163917 bytes"));
    EXPECT_FALSE(has_blob());
    fs::remove(incomplete());
  };
  with([](Reply& reply) { reply.headers["Content-Range"] = "bytes 0-16383/999"; });
  with([](Reply& reply) { reply.headers["Content-Range"] = "bytes 1-16384/163917"; });
  with([](Reply& reply) { reply.headers["Content-Range"] = "zebra"; });
  with([](Reply& reply) { reply.body += "too much"; });
  tuning_.part_bytes = 1 << 20;
  with([](Reply& reply) { reply.body += "too much"; });
  with([](Reply& reply) { reply.body.pop_back(); });
}

TEST_F(HubPullTest, ARangeThatIsNotThereStartsOver) {
  fs::create_directories(repository() + "/blobs");
  std::ofstream(incomplete(), std::ios::binary) << std::string(500, 'x');
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request) && kHits(request, "bytes=500-")) reply = {.status = 416, .headers = {}, .body = ""};
  });
  expect_whole();
  fs::remove(blob());
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request)) reply = {.status = 416, .headers = {}, .body = ""};
  });
  EXPECT_EQ(failure(), ErrorCode::unavailable) << "but not for ever";
}

TEST_F(HubPullTest, TheTokenGoesToNoOtherOrigin) {
  ScriptedHub other;
  other.add("org/name", kCommit, {config_, weights_});
  const auto redirect = [&](const std::string& method) {
    hub_.set_script([&, method](const Request& request, Reply& reply) {
      if (request.method == method)
        reply = {.status = 307, .headers = {{"Location", other.endpoint() + request.target}}, .body = ""};
    });
  };
  redirect("GET");
  other.add("org/name", kCommit, {config_, weights_, {"tokenizer.json", "{}"}});
  expect_whole();
  redirect("HEAD");
  fs::remove_all(repository());
  expect_whole();
  ASSERT_GT(other.requests().size(), 3U);
  for (const Request& request : other.requests()) EXPECT_EQ(request.header("authorization"), "") << request.target;
}

TEST_F(HubPullTest, ATokenDoesNotComeBackAfterADetour) {
  ScriptedHub other;
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request) && request.target.find("again") == std::string::npos) {
      reply = {.status = 302, .headers = {{"Location", other.endpoint() + "/x"}}, .body = ""};
    }
  });
  other.set_script([&](const Request&, Reply& reply) {
    reply = {.status = 302, .headers = {{"Location", hub_.endpoint() + "/again/model.safetensors"}}, .body = ""};
  });
  failure();
  size_t detours = 0;
  for (const Request& request : hub_.requests()) {
    if (request.target.find("again") == std::string::npos) continue;
    ++detours;
    EXPECT_EQ(request.header("authorization"), "");
  }
  EXPECT_GT(detours, 0U);
}

TEST_F(HubPullTest, RenamedRepositoriesAreFollowed) {
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (request.target.starts_with("/api/") && request.target.find("moved") == std::string::npos) {
      reply = {.status = 307, .headers = {{"Location", "/api/models/org/name/revision/main?moved"}}, .body = ""};
    }
  });
  hub_.set_token(kToken);
  expect_whole();
}

TEST_F(HubPullTest, RedirectsThatLeadNowhereAreRefused) {
  for (const std::string location : {"file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:70/x", "",
                                     "http://user:word@127.0.0.1/x", "//"}) {
    for (const char* part : {"/api/models/", "HEAD", "model.safetensors"}) {
      hub_.set_script([&](const Request& request, Reply& reply) {
        const bool hit = std::string_view(part) == "HEAD"
                             ? request.method == "HEAD"
                             : request.method == "GET" && request.target.find(part) != std::string::npos;
        if (hit) reply = {.status = 302, .headers = {{"Location", location}}, .body = ""};
      });
      EXPECT_EQ(failure(), ErrorCode::refused) << location << " " << part << ": " << last_;
      EXPECT_FALSE(has_blob());
    }
  }
  for (const char* method : {"GET", "HEAD"}) {
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (request.method == method) reply = {.status = 302, .headers = {{"Location", request.target}}, .body = ""};
    });
    EXPECT_EQ(failure(), ErrorCode::refused);
    EXPECT_THAT(last_, HasSubstr("in circles"));
  }
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (is_weights(request)) reply = {.status = 302, .headers = {{"Location", request.target}}, .body = ""};
  });
  EXPECT_EQ(failure(), ErrorCode::refused);
}

TEST_F(HubPullTest, ExpiredAddressesAreAskedForAgain) {
  ScriptedHub storage;
  storage.add("any", kCommit, {weights_});
  hub_.set_storage(&storage);
  int answers = 0;
  storage.set_script([&](const Request&, Reply& reply) {
    if (++answers % 4 == 0) reply = {.status = 403, .headers = {}, .body = "expired"};
  });
  expect_whole();
  EXPECT_GT(hub_.count("GET", "model.safetensors"), 1U);
}

TEST_F(HubPullTest, HostileNamesLeaveTheCacheAlone) {
  for (const std::string name : {"../x.safetensors", "/x.safetensors", "a\\..\\x.safetensors", "..\\x.safetensors",
                                 "x\n.safetensors", "./x.safetensors", "a//x.safetensors"}) {
    pull_.globs = {"*.safetensors"};
    hub_.add("org/name", kCommit, {config_, {name, "x", true}});
    EXPECT_EQ(failure(), ErrorCode::refused) << name << ": " << last_;
  }
  pull_.globs = {};
  hub_.add("org/name", kCommit, {config_, {"..\\x.safetensors", "x", true}});
  EXPECT_EQ(failure(), ErrorCode::refused) << last_;
  for (const std::string name : {"../x.safetensors", "/x.safetensors", "a/x.safetensors", "x.bin", ".."}) {
    const std::string index = "{\"weight_map\": {\"a\": \"" + name + "\"}}";
    hub_.add("org/name", kCommit, {config_, {"model.safetensors.index.json", index}, {name, "x", true}});
    EXPECT_EQ(failure(), ErrorCode::refused) << name << ": " << last_;
  }
  EXPECT_FALSE(fs::exists(tree_.path("x.safetensors")));
  EXPECT_FALSE(fs::exists(repository() + "/snapshots/" + kCommit));
}

TEST_F(HubPullTest, HostileHashesAndCommitsAreNoPaths) {
  const auto with = [&](const std::string& header, const std::string& value) {
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (request.method == "HEAD") reply.headers[header] = value;
    });
    EXPECT_EQ(failure(), ErrorCode::malformed) << header << ": " << last_;
  };
  const std::vector<std::string> etags = {"../../x", "\"\"", "", "W/\"abc\"", '"' + std::string(64, 'A') + '"'};
  for (const std::string& etag : etags) with("ETag", etag);
  with("X-Linked-Etag", "\"../../../x\"");
  with("X-Repo-Commit", std::string(40, 'f'));
  with("X-Linked-Size", "-1");
  with("X-Linked-Size", "99999999999999999999");
  with("X-Linked-Size", "18446744073709551615");
  for (const std::string sha : {"../x", "", "0123"}) {
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (request.target.starts_with("/api/")) reply.body = "{\"sha\": \"" + sha + "\", \"siblings\": []}";
    });
    EXPECT_EQ(failure(), ErrorCode::malformed) << sha;
  }
}

TEST_F(HubPullTest, ListsAreBounded) {
  const auto with_list = [&](const std::string& body) {
    hub_.set_script([&](const Request& request, Reply& reply) {
      if (request.target.starts_with("/api/")) reply.body = body;
    });
    EXPECT_EQ(failure(), ErrorCode::malformed) << last_;
  };
  const std::string head = std::string("{\"sha\": \"") + kCommit + "\", \"siblings\": [";
  for (const std::string& body : {std::string("zebra"), std::string("[]"), std::string("{}"), head + "1]}",
                                  head + "{\"rfilename\": 1}]}", std::string(100'000, '[')}) {
    with_list(body);
  }
  std::string many = head;
  for (int i = 0; i < 100'001; ++i) many += "{\"rfilename\": \"f\"},";
  many.back() = ']';
  with_list(many + "}");
  EXPECT_THAT(last_, HasSubstr("limit is 100000"));
  with_list(std::string(33 << 20, ' '));
  EXPECT_THAT(last_, HasSubstr("larger than"));
  std::string needed = head;
  for (int i = 0; i < 6'000; ++i) needed += "{\"rfilename\": \"tokenizer" + std::to_string(i) + ".json\"},";
  with_list(needed + "{\"rfilename\": \"config.json\"}, {\"rfilename\": \"model.safetensors\"}]}");
  EXPECT_EQ(hub_.count("HEAD", ""), 0U);
}

TEST_F(HubPullTest, WhatIsNotAllowedOrNotThereSaysWhatToDo) {
  hub_.set_token("another");
  EXPECT_EQ(failure(), ErrorCode::forbidden);
  EXPECT_THAT(last_, AllOf(HasSubstr("accept its licence at " + hub_.endpoint() + "/org/name"), HasSubstr("HF_TOKEN")));
  hub_.set_token("");
  const auto answer = [&](int status, const std::string& code, const std::string& token) {
    access_.token = token;
    hub_.set_script([=](const Request&, Reply& reply) {
      reply = {.status = status, .headers = {{"X-Error-Code", code}}, .body = ""};
    });
    return failure();
  };
  EXPECT_EQ(answer(401, "", ""), ErrorCode::not_found);
  EXPECT_THAT(last_, AllOf(HasSubstr("check the spelling"), HasSubstr("set HF_TOKEN to a token")));
  EXPECT_EQ(answer(401, "", kToken), ErrorCode::forbidden);
  EXPECT_THAT(last_, HasSubstr("/settings/tokens"));
  EXPECT_EQ(answer(403, "", kToken), ErrorCode::forbidden);
  EXPECT_EQ(answer(403, "GatedRepo", ""), ErrorCode::forbidden);
  EXPECT_EQ(answer(404, "RepoNotFound", kToken), ErrorCode::not_found);
  EXPECT_EQ(answer(404, "RevisionNotFound", kToken), ErrorCode::not_found);
  EXPECT_THAT(last_, HasSubstr("no revision 'main'"));
  EXPECT_EQ(answer(418, "", kToken), ErrorCode::malformed);
}

TEST_F(HubPullTest, RepositoriesThatCannotBeServedSayWhy) {
  const auto with = [&](std::vector<File> files) {
    hub_.add("org/name", kCommit, std::move(files));
    return failure();
  };
  EXPECT_EQ(with({config_, {"pytorch_model.bin", "x", true}}), ErrorCode::refused);
  EXPECT_THAT(last_, AllOf(HasSubstr("pickles"), HasSubstr("safe_serialization")));
  EXPECT_EQ(with({config_, {"model.gguf", "x", true}}), ErrorCode::unsupported);
  EXPECT_EQ(with({config_}), ErrorCode::not_found);
  EXPECT_EQ(with({weights_}), ErrorCode::not_found);
  EXPECT_EQ(with({config_, {"a.safetensors", "x"}, {"b.safetensors", "x"}}), ErrorCode::not_found);
  EXPECT_EQ(with({config_, {"model.safetensors.index.json", "{}"}}), ErrorCode::malformed);
  EXPECT_EQ(with({config_, {"model.safetensors.index.json", "{\"weight_map\": {\"a\": \"absent.safetensors\"}}"}}),
            ErrorCode::not_found);
  EXPECT_EQ(hub_.count("GET", ".bin"), 0U);
}

TEST_F(HubPullTest, OfflineAndWrongSettingsAskNobody) {
  access_.offline = true;
  EXPECT_EQ(failure(), ErrorCode::unavailable);
  EXPECT_THAT(last_, HasSubstr("HF_HUB_OFFLINE"));
  access_.offline = false;
  const std::string good = access_.endpoint;
  for (const std::string endpoint : {"", "file:///etc", "ftp://h", "zebra://h", "http://a:planted-secret@h",
                                     "http://h?x", "http://h#x", "http:// h"}) {
    access_.endpoint = endpoint;
    EXPECT_EQ(failure(), ErrorCode::invalid_argument) << endpoint;
  }
  access_.endpoint = good;
  access_.token = "planted-secret\r\nX-Injected: 1";
  EXPECT_EQ(failure(), ErrorCode::invalid_argument);
  EXPECT_TRUE(hub_.requests().empty());
}

TEST_F(HubPullTest, TheTokenMayStandInAFile) {
  hub_.set_token(kToken);
  access_.token = "";
  access_.token_file = tree_.path("token");
  EXPECT_EQ(failure(), ErrorCode::forbidden) << "no file is no token";
  tree_.write("token", std::string(" ") + kToken + "\n");
  expect_whole();
}

}  // namespace
}  // namespace inferneo
