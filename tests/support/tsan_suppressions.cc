// Linked into every test program under ThreadSanitizer. The Rust library is compiled without it, and locks of Rust are
// atomics in the code itself: of what they order the sanitizer sees the calls of malloc and bcmp alone, and takes those
// for races. Named are the functions of Rust that the token cache calls beneath its lock.
extern "C" const char* __tsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier): its name for it

extern "C" const char* __tsan_default_suppressions() {  // NOLINT
  return "race:inferneo_text::token_cache::\n"
         "race:alloc::sync::Arc\n"
         "race:alloc::vec::Vec\n"
         "race:hashbrown::\n";
}
