// Linked into every test program under ThreadSanitizer. The Rust library is compiled without it, and locks of Rust are
// atomics in the code itself: of what they order the sanitizer sees the calls of malloc and bcmp alone, and takes those
// for races.
extern "C" const char* __tsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier): its name for it

extern "C" const char* __tsan_default_suppressions() { return "race:inferneo_text::token_cache::\n"; }  // NOLINT
