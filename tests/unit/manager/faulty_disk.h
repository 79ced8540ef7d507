// A disk that fails when a test says so: SQLite's own file system with its writes, syncs and truncations replaced.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <map>

namespace inferneo::testing {

class FaultyDisk {
 public:
  // All databases that are opened from here on are on this disk.
  static void install() {
    state().real = sqlite3_vfs_find(nullptr);
    state().vfs = *state().real;
    state().vfs.zName = "faulty";
    state().vfs.xOpen = open;
    ASSERT_EQ(sqlite3_vfs_register(&state().vfs, 1), SQLITE_OK);
  }
  static void uninstall() {
    sqlite3_vfs_unregister(&state().vfs);
    sqlite3_vfs_register(state().real, 1);
  }

  // `calls` writes go well; all after them answer with `code` until heal().
  static void fail_from(int calls, int code) {
    state().left = calls;
    state().code = code;
    state().armed = true;
    state().failed = false;
  }
  static bool has_failed() { return state().failed; }
  static void heal() { state().armed = state().failed = false; }
  static void heal_but_remember() { state().armed = false; }

 private:
  struct Methods {
    sqlite3_io_methods ours;  // first: what a file points to
    const sqlite3_io_methods* real;
  };
  struct State {
    sqlite3_vfs* real = nullptr;
    sqlite3_vfs vfs{};
    std::map<const sqlite3_io_methods*, Methods> methods;
    bool armed = false, failed = false;
    int left = 0, code = 0;
  };
  static State& state() {
    static State instance;
    return instance;
  }
  static const sqlite3_io_methods* real(sqlite3_file* file) {
    return reinterpret_cast<const Methods*>(file->pMethods)->real;
  }
  static bool fails() {
    if (!state().armed || state().left-- > 0) return false;
    return state().failed = true;
  }
  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
    const int code = state().real->xOpen(vfs, name, file, flags, out_flags);
    if (file->pMethods == nullptr) return code;
    Methods& methods = state().methods[file->pMethods];
    methods.ours = *file->pMethods;
    methods.real = file->pMethods;
    methods.ours.xWrite = [](sqlite3_file* f, const void* data, int size, sqlite3_int64 offset) {
      return fails() ? state().code : real(f)->xWrite(f, data, size, offset);
    };
    methods.ours.xSync = [](sqlite3_file* f, int how) { return fails() ? state().code : real(f)->xSync(f, how); };
    methods.ours.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
      return fails() ? state().code : real(f)->xTruncate(f, size);
    };
    file->pMethods = &methods.ours;
    return code;
  }
};

}  // namespace inferneo::testing
