// Pulls that succeed, and what the hub, the cache and the caller see of them.
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "unit/formats/hub_fixture.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::pseudo_random_bytes;
using testing::ScriptedHub;
namespace fs = std::filesystem;

TEST_F(HubPullTest, TheCacheIsThatOfThePythonTools) {
  const auto snapshot = pull();
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
  EXPECT_EQ(snapshot->commit, kCommit);
  EXPECT_THAT(snapshot->files, ElementsAre("config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(snapshot->bytes_downloaded, snapshot->bytes);
  EXPECT_EQ(read(blob()), weights_.content);
  EXPECT_EQ(fs::read_symlink(snapshot->path + "/model.safetensors"), "../../blobs/" + weights_.etag());
  EXPECT_EQ(fs::read_symlink(snapshot->path + "/config.json"), "../../blobs/" + config_.etag());
  EXPECT_EQ(read(repository() + "/refs/main"), kCommit);
  EXPECT_TRUE(fs::exists(access_.cache + "/.locks/models--org--name/" + weights_.etag() + ".lock"));

  const auto source = resolve_model_source("org/name", {.hub_cache = access_.cache});
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_EQ(source->revision, kCommit);
  EXPECT_EQ(*source->directory.read("config.json", 100), config_.content);
}

TEST_F(HubPullTest, ASecondPullDownloadsNothing) {
  expect_whole();
  const std::string reference = repository() + "/refs/main";
  const auto written = fs::last_write_time(reference);
  const auto again = pull();
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(fs::last_write_time(reference), written) << "a cache may be read-only";
  EXPECT_EQ(again->bytes_downloaded, 0U);
  EXPECT_EQ(hub_.count("GET", "config.json"), 1U);
}

TEST_F(HubPullTest, RevisionsAreKeptAsReferences) {
  for (const std::string revision : {"v1.0", "refs/pr/1"}) {
    hub_.add("org/name", kCommit, {config_, weights_}, {revision});
    pull_.id.revision = revision;
    expect_whole();
    EXPECT_EQ(read(repository() + "/refs/" + revision), kCommit);
  }
  pull_.id.revision = kCommit;
  expect_whole();
  EXPECT_FALSE(fs::exists(repository() + "/refs/" + kCommit));
}

TEST_F(HubPullTest, LargeFilesComeInPartsFromTheStorageWithoutTheToken) {
  ScriptedHub storage;
  storage.add("any", kCommit, {weights_});
  hub_.set_storage(&storage);
  hub_.set_token(kToken);
  expect_whole();
  EXPECT_EQ(storage.requests().size(), 11U) << "ten parts and the rest";
  for (const Request& request : storage.requests()) {
    EXPECT_EQ(request.header("authorization"), "") << request.target;
  }
  EXPECT_EQ(hub_.count("GET", "/resolve/"), 3U) << "the redirect is asked for once";
  for (const Request& request : hub_.requests())
    EXPECT_EQ(request.header("authorization"), std::string("Bearer ") + kToken);
}

TEST_F(HubPullTest, OfShardedWeightsOnlyTheShardsOfTheIndexCome) {
  const std::string index = R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})";
  hub_.add("org/name", kCommit,
           {config_,
            {"model.safetensors.index.json", index},
            {"model-1.safetensors", "one", true},
            {"model-2.safetensors", "two", true},
            {"consolidated.safetensors", "both", true}});
  std::vector<HubProgress> seen;
  pull_.on_progress = [&](const HubProgress& progress) { seen.push_back(progress); };
  const auto snapshot = pull();
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
  EXPECT_THAT(snapshot->files,
              ElementsAre("config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"));
  EXPECT_EQ(hub_.count("GET", "consolidated"), 0U);
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().files_done, 4U);
  EXPECT_EQ(seen.back().bytes_done, snapshot->bytes);
  EXPECT_EQ(seen.back().bytes_total, snapshot->bytes);
}

TEST_F(HubPullTest, GlobsChooseInstead) {
  pull_.globs = {"*.md", "token*"};
  const auto snapshot = pull();
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
  EXPECT_THAT(snapshot->files, ElementsAre("README.md", "tokenizer.json"));
  pull_.globs = {"*.bin"};
  EXPECT_EQ(failure(), ErrorCode::refused);
  pull_.globs = {"zebra"};
  EXPECT_EQ(failure(), ErrorCode::not_found);
}

TEST_F(HubPullTest, FilesInFoldersAndEmptyOnesArePutInPlace) {
  hub_.add("org/name", kCommit, {{"a/b/c d.json", "{}"}, {"a/empty.json", ""}});
  pull_.globs = {"*.json"};
  const auto snapshot = pull();
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
  EXPECT_EQ(read(snapshot->path + "/a/b/c d.json"), "{}");
  EXPECT_TRUE(fs::exists(snapshot->path + "/a/empty.json"));
}

TEST_F(HubPullTest, APullGoesOnWhereAnEarlierOneEnded) {
  fs::create_directories(repository() + "/blobs");
  std::ofstream(incomplete(), std::ios::binary) << weights_.content.substr(0, 3 * kPart + 5);
  const auto snapshot = pull();
  ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
  EXPECT_EQ(read(blob()), weights_.content);
  EXPECT_EQ(snapshot->bytes - snapshot->bytes_downloaded, 3 * kPart + 5);
}

TEST_F(HubPullTest, ABeginningOfSomethingElseIsThrownAway) {
  fs::create_directories(repository() + "/blobs");
  for (const size_t size : {size_t{100}, weights_.content.size(), weights_.content.size() + 1}) {
    fs::remove(blob());
    std::ofstream(incomplete(), std::ios::binary) << std::string(size, 'x');
    expect_whole();
    EXPECT_EQ(read(blob()), weights_.content) << size;
  }
}

TEST_F(HubPullTest, AServerWithoutRangesIsReadWhole) {
  hub_.set_script([](const Request& request, Reply& reply) {
    if (reply.status != 206) return;
    reply.status = 200;
    reply.body = pseudo_random_bytes(10 * kPart + 77, 1);
    EXPECT_TRUE(is_weights(request));
  });
  expect_whole();
  fs::remove(blob());
  std::ofstream(incomplete(), std::ios::binary) << weights_.content.substr(0, 1000);
  expect_whole();
}

TEST_F(HubPullTest, TwoPullersDownloadOnce) {
  std::atomic<int> waits = 0;
  hub_.set_script([](const Request& request, Reply&) {
    if (is_weights(request)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  std::vector<std::thread> pullers;
  std::atomic<uint64_t> downloaded = 0;
  for (int i = 0; i < 4; ++i) {
    pullers.emplace_back([&] {
      HubPull mine = pull_;
      mine.on_progress = [&](const HubProgress& progress) { waits += progress.waiting ? 1 : 0; };
      const auto snapshot = pull_snapshot(access_, mine, tuning_);
      ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
      downloaded += snapshot->bytes_downloaded;
    });
  }
  for (std::thread& puller : pullers) puller.join();
  EXPECT_EQ(downloaded, weights_.content.size() + config_.content.size() + 2);
  EXPECT_EQ(hub_.count("GET", "/resolve/"), 13U) << "eleven parts and two small files";
  EXPECT_GT(waits, 0);
  expect_whole();
}

TEST_F(HubPullTest, AProcessThatHoldsTheLockIsWaitedFor) {
  const std::string lock = access_.cache + "/.locks/models--org--name/" + weights_.etag() + ".lock";
  fs::create_directories(fs::path(lock).parent_path());
  // Another process downloads: it holds the lock, then the blob is there.
  FILE* other = ::popen(("flock '" + lock + "' sh -c 'echo held; sleep 0.3; mkdir -p \"" + repository() +
                         "/blobs\"; cp \"" + tree_.path("done") + "\" \"" + blob() + "\"'")
                            .c_str(),
                        "r");
  tree_.write("done", weights_.content);
  std::array<char, 16> line{};
  ASSERT_NE(std::fgets(line.data(), line.size(), other), nullptr);
  expect_whole();
  ::pclose(other);
  EXPECT_EQ(hub_.count("GET", "model.safetensors"), 0U);
}

TEST_F(HubPullTest, StoppingKeepsWhatHasCome) {
  std::stop_source stop;
  pull_.stop = stop.get_token();
  hub_.set_script([&](const Request& request, Reply& reply) {
    if (!is_weights(request) || request.header("range").find("bytes=65536-") != 0) return;
    reply.send = 100;
    reply.then = Reply::Then::stall;
    stop.request_stop();
  });
  EXPECT_EQ(failure(), ErrorCode::cancelled);
  EXPECT_THAT(last_, HasSubstr("pulling again goes on"));
  EXPECT_GE(fs::file_size(incomplete()), kPart);
  EXPECT_FALSE(has_blob());
  EXPECT_FALSE(fs::exists(repository() + "/refs/main"));
  EXPECT_FALSE(fs::exists(repository() + "/snapshots/" + kCommit));
  const std::string kept = read(incomplete());
  EXPECT_EQ(kept, weights_.content.substr(0, kept.size())) << "a beginning of the file";

  pull_.stop = {};
  hub_.set_script({});
  expect_whole();
}

TEST_F(HubPullTest, AFullDiskIsSaidBeforeAndOnTheWay) {
  hub_.set_script([](const Request& request, Reply& reply) {
    if (request.method == "HEAD" && request.target.ends_with("model.safetensors")) {
      reply.headers["X-Linked-Size"] = "4000000000000";
    }
  });
  EXPECT_EQ(failure(), ErrorCode::disk_full);
  EXPECT_THAT(last_, AllOf(HasSubstr("4.0 TB are still to come"), HasSubstr("free"), HasSubstr("--hub-cache")));
  hub_.set_script({});

  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 2 * kPart + 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const ErrorCode code = failure();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(code, ErrorCode::disk_full);
  EXPECT_THAT(last_, HasSubstr("no room"));
  EXPECT_EQ(fs::file_size(incomplete()), 2 * kPart + 10) << "kept";
  expect_whole();
}

TEST_F(HubPullTest, ACacheThatCannotBeWrittenIsAnError) {
  tree_.write("hub", "a file");
  EXPECT_EQ(failure(), ErrorCode::io_error);
  access_.cache = "";
  EXPECT_EQ(failure(), ErrorCode::invalid_argument);
}

TEST_F(HubPullTest, SearchFindsNamesForSuggestions) {
  const auto ids = search_hub(access_, "nam", {}, tuning_);
  ASSERT_TRUE(ids.ok()) << ids.error().message;
  EXPECT_THAT(*ids, ElementsAre("org/name"));
}

TEST(ByteText, ThreeDigitsAtMost) {
  EXPECT_EQ(byte_text(3), "3 bytes");
  EXPECT_EQ(byte_text(1234), "1.2 kB");
  EXPECT_EQ(byte_text(999'400'000), "999 MB");
  EXPECT_EQ(byte_text(999'600'000), "1.0 GB");
  EXPECT_EQ(byte_text(uint64_t{123} * 1'000'000'000'000), "123 TB");
}

}  // namespace
}  // namespace inferneo
