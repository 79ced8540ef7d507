// The registry's file: how it comes into being, what is refused, the lock, migrations, a disk that fails.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>

#include "manager/registry_file.h"
#include "manager/registry_store.h"
#include "support/temp_tree.h"
#include "unit/manager/faulty_disk.h"
#include "unit/manager/registry_fixture.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::model;
using testing::open_registry;
using testing::read_bytes;
using testing::snapshot;
using testing::write_bytes;

int mode_of(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<int>(info.st_mode & 0777) : -1;
}

// A connection of somebody else's.
class RawDatabase {
 public:
  explicit RawDatabase(const std::string& path) { EXPECT_EQ(sqlite3_open(path.c_str(), &connection_), SQLITE_OK); }
  ~RawDatabase() { sqlite3_close(connection_); }
  RawDatabase(const RawDatabase&) = delete;
  RawDatabase& operator=(const RawDatabase&) = delete;
  void run(const char* sql) {
    EXPECT_EQ(sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(connection_);
  }

 private:
  sqlite3* connection_ = nullptr;
};

void expect_refused(const std::string& path, ErrorCode code, const std::string& words) {
  const std::string before = read_bytes(path);
  const auto refused = Registry::open(path);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, code) << refused.error().message;
  EXPECT_THAT(refused.error().message, HasSubstr(path));
  EXPECT_THAT(refused.error().message, HasSubstr(words));
  EXPECT_EQ(read_bytes(path), before) << "a file that is refused stays as it is";
}

TEST(RegistryFile, IsMadeForItsOwnerAlone) {
  const testing::TempTree tree;
  const std::string path = tree.path("new/folder/registry.db");
  const auto registry = open_registry(path);
  ASSERT_TRUE(registry->add(model("m")).ok());
  for (const char* folder : {"new", "new/folder"}) EXPECT_EQ(mode_of(tree.path(folder)), 0700);
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) EXPECT_EQ(mode_of(path + suffix), 0600) << suffix;
  EXPECT_FALSE(fs::exists(path + ".new"));
}

TEST(RegistryFile, IsCompleteByItselfAfterEachWrite) {
  const testing::TempTree tree;
  const auto registry = open_registry(tree.path("registry.db"));
  testing::fill(*registry);
  fs::copy_file(tree.path("registry.db"), tree.path("copy.db"));
  EXPECT_EQ(snapshot(*open_registry(tree.path("copy.db"))), snapshot(*registry));
}

TEST(RegistryFile, RefusesWhatIsNoRegistry) {
  const testing::TempTree tree;
  const auto file = [&](const char* name, const std::string& bytes) {
    tree.write(name, bytes);
    return tree.path(name);
  };
  expect_refused(file("empty", ""), ErrorCode::malformed, "it is empty");
  expect_refused(file("text", "not a database at all, however long it may be"), ErrorCode::malformed,
                 "not a SQLite database");
  expect_refused(file("text", std::string(5000, '\0')), ErrorCode::malformed, "move it away");
  expect_refused(file("short", std::string("SQLite format 3\0", 16)), ErrorCode::malformed, "its end is missing");
  RawDatabase(tree.path("foreign")).run("CREATE TABLE models (id)");
  expect_refused(tree.path("foreign"), ErrorCode::malformed, "not a registry of Inferneo");
  EXPECT_EQ(Registry::open(tree.root()).error().code, ErrorCode::refused);
  ASSERT_EQ(::mkfifo(tree.path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(Registry::open(tree.path("fifo")).error().code, ErrorCode::refused);
  tree.link("nowhere", "dangling");
  EXPECT_EQ(Registry::open(tree.path("dangling")).error().code, ErrorCode::refused);
  EXPECT_EQ(Registry::open(tree.path("text/below")).error().code, ErrorCode::io_error);
}

TEST(RegistryFile, RefusesAForeignOrNewerSchema) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  testing::fill(*open_registry(path));
  const std::string good = read_bytes(path);
  RawDatabase(path).run("PRAGMA user_version = 99");
  expect_refused(path, ErrorCode::unsupported, "version 99");
  write_bytes(path, good);
  RawDatabase(path).run("CREATE TABLE more (x)");
  expect_refused(path, ErrorCode::malformed, "its tables are not those");
  write_bytes(path, good);
  RawDatabase(path).run("PRAGMA foreign_keys = OFF; DELETE FROM models WHERE name = 'org/chat'");
  expect_refused(path, ErrorCode::malformed, "references are damaged");
  write_bytes(path, good);
  RawDatabase(path).run("UPDATE models SET source = 'elsewhere' WHERE name = 'org/chat' AND version = '1'");
  expect_refused(path, ErrorCode::malformed, "'org/chat:1' is damaged");
}

TEST(RegistryFile, RefusesAReadOnlyFile) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  open_registry(path).reset();
  ASSERT_EQ(::chmod(path.c_str(), 0400), 0);
  expect_refused(path, ErrorCode::io_error, "read-only");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  EXPECT_TRUE(Registry::open(path).ok());
}

TEST(RegistryFile, IsNotBegunAnewBesideItsLog) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  tree.write("registry.db-wal", "what a crash left");
  const auto refused = Registry::open(path);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_THAT(refused.error().message, HasSubstr(path + "-wal"));
  EXPECT_FALSE(fs::exists(path));
}

TEST(RegistryFile, SaysThatAnotherProgramLocksIt) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  const auto registry = open_registry(path);
  ASSERT_TRUE(registry->add(model("m")).ok());
  const RegistrySnapshot before = snapshot(*registry);
  {
    RawDatabase other(path);
    other.run("BEGIN IMMEDIATE");
    EXPECT_EQ(registry->add(model("n")).error().code, ErrorCode::unavailable);
    EXPECT_EQ(snapshot(*registry), before);
  }
  EXPECT_TRUE(registry->add(model("n")).ok());
}

TEST(RegistryFile, IsNotOpenedWhileAnotherProgramLocksIt) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  open_registry(path).reset();
  RawDatabase other(path);
  other.run("BEGIN IMMEDIATE");
  expect_refused(path, ErrorCode::unavailable, "locked by another program");
  other.run("ROLLBACK");
  EXPECT_TRUE(Registry::open(path).ok());
}

// ---- the lock

TEST(RegistryLock, KeepsOthersOutByAnyName) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  auto registry = open_registry(path);
  tree.link(path, "link.db");
  for (const std::string& name : {path, tree.path("link.db"), tree.root() + "/./registry.db"}) {
    const auto second = Registry::open(name);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, ErrorCode::unavailable);
    EXPECT_THAT(second.error().message, HasSubstr("process " + std::to_string(::getpid())));
    EXPECT_EQ((*Registry::read_holder(name))->pid, ::getpid());
  }
  registry.reset();
  EXPECT_TRUE(Registry::open(tree.path("link.db")).ok());
}

TEST(RegistryLock, TellsWhereTheServerIs) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  EXPECT_FALSE(Registry::read_holder(path)->has_value());
  EXPECT_FALSE(Registry::read_holder(tree.path("no/such/folder"))->has_value());
  EXPECT_FALSE(Registry::read_holder("")->has_value());
  auto registry = open_registry(path);
  EXPECT_EQ((*Registry::read_holder(path))->pid, ::getpid());
  EXPECT_EQ((*Registry::read_holder(path))->address, "");
  ASSERT_TRUE(registry->set_server_address("http://127.0.0.1:8000").ok());
  EXPECT_EQ((*Registry::read_holder(path))->address, "http://127.0.0.1:8000");
  EXPECT_THAT(Registry::open(path).error().message, HasSubstr("http://127.0.0.1:8000"));
  EXPECT_EQ(registry->set_server_address("a\npid 1").error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(registry->set_server_address("").ok());
  EXPECT_EQ((*Registry::read_holder(path))->address, "");
  registry.reset();
  EXPECT_FALSE(Registry::read_holder(path)->has_value());
  EXPECT_TRUE(open_registry("")->set_server_address("http://127.0.0.1:1").ok());
}

TEST(RegistryLock, EndsWithItsProcess) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto registry = Registry::open(path);
    const bool good = registry.ok() && (*registry)->set_server_address("http://127.0.0.1:9").ok();
    const bool told = ::write(ends[1], good ? "y" : "n", 1) == 1;
    ::pause();
    ::_exit(told ? 0 : 1);
  }
  char answer = 0;
  ASSERT_EQ(::read(ends[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  const auto holder = Registry::read_holder(path);
  EXPECT_EQ((*holder)->pid, child);
  EXPECT_EQ((*holder)->address, "http://127.0.0.1:9");
  EXPECT_THAT(Registry::open(path).error().message, HasSubstr("process " + std::to_string(child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (const int end : ends) ::close(end);
  EXPECT_FALSE(Registry::read_holder(path)->has_value());
  EXPECT_TRUE(Registry::open(path).ok());
}

// ---- migrations: of the file of an earlier version, and with one more version that exists in this test alone

constexpr const char* kAddColour =
    "CREATE TABLE colours (model INTEGER PRIMARY KEY REFERENCES models (id), colour TEXT NOT NULL) STRICT;"
    "INSERT INTO colours (model, colour) SELECT id, 'red' FROM models;";

std::vector<const char*> migrations_and(const char* one_more) {
  const auto known = registry_migrations();
  std::vector<const char*> all(known.begin(), known.end());
  all.push_back(one_more);
  return all;
}

std::vector<std::string> backups(const std::string& folder) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".backup") found.push_back(entry.path());
  }
  return found;
}

TEST(RegistryMigration, BringsAnOlderFileForwardAfterABackup) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  RegistrySnapshot before;
  {
    const auto registry = open_registry(path);
    testing::fill(*registry);
    before = snapshot(*registry);
  }
  const std::vector<const char*> migrations = migrations_and(kAddColour);
  {
    const auto database = open_registry_file(path, migrations);
    ASSERT_TRUE(database.ok()) << database.error().message;
    EXPECT_EQ(*(*database)->query_integer("PRAGMA user_version"), static_cast<int64_t>(migrations.size()));
    EXPECT_EQ(*(*database)->query_integer("SELECT count(*) FROM colours"), 23);
    EXPECT_EQ(*RegistryStore(**database).load_all(), before);
  }
  ASSERT_TRUE(open_registry_file(path, migrations).ok()) << "again: nothing to migrate";
  expect_refused(path, ErrorCode::unsupported, "version 3");
  ASSERT_EQ(backups(tree.root()).size(), 1U);
  const std::string backup = backups(tree.root())[0];
  EXPECT_THAT(backup, HasSubstr("registry.db.v2-"));
  EXPECT_EQ(mode_of(backup), 0600);
  EXPECT_EQ(snapshot(*open_registry(backup)), before) << "the backup is a registry of the older version";
}

TEST(RegistryMigration, AFileOfTheFirstVersionGetsItsRulesAndTests) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  {
    const auto database = open_registry_file(path, registry_migrations().first(1));
    ASSERT_TRUE(database.ok()) << database.error().message;
    const RegistryStore store(**database);
    ASSERT_TRUE(store.put_name({.name = "story"}).ok());
    ASSERT_TRUE(store.insert_model({.id = {"story", "1"}, .source = "files"}).ok());
  }
  const TrafficRecord rule{.kind = "rule",
                           .name = "r",
                           .definition = "{}",
                           .progress = "p",
                           .outcomes = {std::byte{0}, std::byte{255}},
                           .created = 7};
  {
    const auto registry = open_registry(path);
    EXPECT_EQ(snapshot(*registry).models.size(), 1U);
    EXPECT_TRUE(registry->traffic()->empty());
    ASSERT_TRUE(registry->change_traffic({rule, {.kind = "rule", .name = "gone", .definition = "{}"}}, {}).ok());
    ASSERT_TRUE(registry->change_traffic({}, {{"rule", "gone"}, {"rule", "never"}}).ok());
  }
  EXPECT_EQ(*open_registry(path)->traffic(), std::vector{rule});
  ASSERT_EQ(backups(tree.root()).size(), 1U);
  EXPECT_THAT(backups(tree.root())[0], HasSubstr("registry.db.v1-"));
  RawDatabase(path).run("UPDATE traffic SET definition = '{ }'");
  expect_refused(path, ErrorCode::malformed, "the rule 'r' is damaged");
}

TEST(RegistryMigration, ThatFailsLeavesTheFileAsItWas) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  testing::fill(*open_registry(path));
  const RegistrySnapshot before = snapshot(*open_registry(path));
  const std::vector<const char*> migrations = migrations_and("CREATE TABLE colours (x); DROP TABLE aliases; nonsense");
  const auto failed = open_registry_file(path, migrations);
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr(path));
  EXPECT_EQ(snapshot(*open_registry(path)), before);
  EXPECT_EQ(backups(tree.root()).size(), 1U);
}

// ---- a disk that fails

// Arms the disk to fail at the first, second, third ... write of `operation`, until it gets through.
template <typename Operation>
int fail_everywhere(int code, Operation operation) {
  for (int at = 0;; ++at) {
    testing::FaultyDisk::fail_from(at, code);
    operation(at);
    const bool failed = testing::FaultyDisk::has_failed();
    testing::FaultyDisk::heal();
    if (!failed) return at;
  }
}

class RegistryDisk : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() { testing::FaultyDisk::install(); }
  static void TearDownTestSuite() { testing::FaultyDisk::uninstall(); }
  static void expect_typed(const Error& error) {
    EXPECT_EQ(error.code, GetParam() == SQLITE_FULL ? ErrorCode::disk_full : ErrorCode::io_error) << error.message;
  }
};

TEST_P(RegistryDisk, WritesHappenWhollyOrNotAtAllAndWorkAgainLater) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  auto registry = open_registry(path);
  ASSERT_TRUE(registry->add(model("m", "base")).ok());
  int failures = 0;
  const auto attempt = [&](auto operation, auto again) {
    const int writes = fail_everywhere(GetParam(), [&](int at) {
      const RegistrySnapshot before = snapshot(*registry);
      const auto result = operation(at);
      testing::FaultyDisk::heal_but_remember();
      const RegistrySnapshot after = snapshot(*registry);
      if (result.ok()) {
        EXPECT_NE(after, before);
        return;
      }
      ++failures;
      expect_typed(result.error());
      EXPECT_EQ(after, before);
      EXPECT_TRUE(again(at).ok()) << "with room again it works";
    });
    EXPECT_GT(writes, 1);
  };
  const auto add = [&](int at) { return registry->add(model("m", std::to_string(at))); };
  const auto remove = [&](int at) { return registry->remove({"m", std::to_string(at)}); };
  const auto use = [&](int at) { return registry->record_usage({{{"m", "base"}, 1000 + at, 1}}); };
  const auto reconcile = [&](int at) {
    return registry->reconcile_config({{model("c", std::to_string(at)), model("d", std::to_string(at))}, {}});
  };
  attempt(add, add);
  attempt(remove, remove);
  attempt(use, use);
  attempt(reconcile, reconcile);
  EXPECT_GT(failures, 4);
  const RegistrySnapshot last = snapshot(*registry);
  registry.reset();
  EXPECT_EQ(snapshot(*open_registry(path)), last);
}

TEST_P(RegistryDisk, AFileThatCouldNotBeMadeIsNotThere) {
  const testing::TempTree tree;
  const std::string path = tree.path("registry.db");
  const int writes = fail_everywhere(GetParam(), [&](int) {
    fs::remove(path);
    const auto registry = Registry::open(path);
    if (registry.ok()) return;
    expect_typed(registry.error());
    EXPECT_THAT(registry.error().message, HasSubstr(path));
  });
  EXPECT_GT(writes, 1);
  EXPECT_EQ(snapshot(*open_registry(path)), RegistrySnapshot());
}

// A file system of its own, 512 KiB large; needs the right to mount one.
TEST(RegistryFullDisk, RefusesWritesUntilThereIsRoom) {
  const testing::TempTree tree;
  const std::string folder = tree.directory("small");
  if (::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=512k") != 0) GTEST_SKIP() << "may not mount";
  {
    const auto registry = open_registry(folder + "/registry.db");
    testing::fill(*registry);
    write_bytes(folder + "/filler", std::string(1 << 20, 'x'));
    const RegistrySnapshot before = snapshot(*registry);
    ModelRecord large = model("large");
    large.metadata = {{"note", std::string(60'000, 'x')}};
    for (int i = 0; i < 3; ++i) {
      const auto full = registry->add(large);
      ASSERT_FALSE(full.ok());
      EXPECT_EQ(full.error().code, ErrorCode::disk_full) << full.error().message;
      EXPECT_EQ(snapshot(*registry), before) << "what is there can still be read";
    }
    EXPECT_EQ(Registry::open(folder + "/second.db").error().code, ErrorCode::disk_full);
    fs::remove(folder + "/filler");
    EXPECT_TRUE(registry->add(large).ok());
  }
  EXPECT_EQ(snapshot(*open_registry(folder + "/registry.db")).models.size(), 24U);
  EXPECT_EQ(::umount2(folder.c_str(), MNT_DETACH), 0);
}

INSTANTIATE_TEST_SUITE_P(Faults, RegistryDisk, ::testing::Values(SQLITE_FULL, SQLITE_IOERR_WRITE));

}  // namespace
}  // namespace inferneo
