# inferneo_room(<name> [SOURCES ...] [DEPENDS ...]): one static library per room, with the project's warnings.
# inferneo_test(<name> LABEL fast|full|soak [TIMING] [TIMEOUT s] SOURCES ... [DEPENDS ...]): one GoogleTest program,
# registered with CTest, with a home of its own. TIMING: it holds work to a time, which means nothing under a sanitizer; those runs leave it out.
find_program(INFERNEO_CCACHE ccache)
if(INFERNEO_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${INFERNEO_CCACHE})
  if(INFERNEO_PCH)  # what ccache wants before it caches with them
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${INFERNEO_CCACHE})
  endif()
  set(CMAKE_C_COMPILER_LAUNCHER ${INFERNEO_CCACHE})
endif()

add_library(inferneo_options INTERFACE)
target_compile_options(inferneo_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                       -fno-omit-frame-pointer)
if(INFERNEO_WERROR)
  target_compile_options(inferneo_options INTERFACE -Werror)
endif()
if(INFERNEO_SANITIZE)
  target_compile_options(inferneo_options INTERFACE -fsanitize=${INFERNEO_SANITIZE})
  target_link_options(inferneo_options INTERFACE -fsanitize=${INFERNEO_SANITIZE})
  if(INFERNEO_SANITIZE MATCHES "undefined")
    target_compile_options(inferneo_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
if(INFERNEO_COVERAGE)  # of many threads, so the counts have to be atomic
  target_compile_options(inferneo_options INTERFACE --coverage -fprofile-update=atomic)
  target_compile_definitions(inferneo_options INTERFACE INFERNEO_COVERAGE)
  target_link_options(inferneo_options INTERFACE --coverage)
endif()
target_include_directories(inferneo_options INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
find_package(Threads REQUIRED)
target_link_libraries(inferneo_options INTERFACE Threads::Threads)

# The tests' own code need not be fast, and a sanitizer watches the rooms: unoptimised it is compiled in half the time.
set(INFERNEO_TEST_OPTIONS -O0)

# Precompiled headers, for the builds that are made from scratch often; a release build goes without, and clang-tidy knows
# nothing of them, so that a missing include is still an error somewhere.
if(INFERNEO_PCH)
  # The compiler's own garbage collection costs a tenth of its time before half a gigabyte.
  target_compile_options(inferneo_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-heapsize=524288>)
  file(WRITE ${CMAKE_BINARY_DIR}/pch/empty.cc "")
  find_package(fmt REQUIRED)
  add_library(inferneo_pch OBJECT ${CMAKE_BINARY_DIR}/pch/empty.cc)
  target_link_libraries(inferneo_pch PRIVATE inferneo_options fmt::fmt)
  target_compile_options(inferneo_pch PRIVATE -fpch-preprocess)
  target_precompile_headers(inferneo_pch PRIVATE <algorithm> <chrono> <functional> <map> <memory> <mutex> <optional>
                            <string> <thread> <utility> <variant> <vector> <fmt/format.h>)
  if(INFERNEO_TESTS)
    find_package(GTest REQUIRED)
    # A program, since the tests are: position-independent code of programs differs from that of libraries.
    file(WRITE ${CMAKE_BINARY_DIR}/pch/main.cc "int main() { return 0; }\n")
    add_executable(inferneo_test_pch ${CMAKE_BINARY_DIR}/pch/main.cc)
    target_link_libraries(inferneo_test_pch PRIVATE inferneo_options fmt::fmt GTest::gmock GTest::gtest)
    target_compile_options(inferneo_test_pch PRIVATE -fpch-preprocess ${INFERNEO_TEST_OPTIONS})
    target_precompile_headers(inferneo_test_pch PRIVATE <chrono> <filesystem> <fstream> <functional> <future> <map>
                              <memory> <optional> <string> <thread> <variant> <vector> <fmt/format.h> <gmock/gmock.h>
                              <gtest/gtest.h> ${CMAKE_SOURCE_DIR}/tests/support/json_instances.h)
    add_library(inferneo_json_instances STATIC ${CMAKE_SOURCE_DIR}/tests/support/json_instances.cc)
    target_link_libraries(inferneo_json_instances PRIVATE inferneo_options)
    target_compile_options(inferneo_json_instances PRIVATE ${INFERNEO_TEST_OPTIONS})
    target_include_directories(inferneo_json_instances PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  endif()
endif()

# use_pch(<target> <of>): nothing without INFERNEO_PCH.
function(use_pch target of)
  if(INFERNEO_PCH)
    target_compile_options(${target} PRIVATE -fpch-preprocess)
    target_precompile_headers(${target} REUSE_FROM ${of})
  endif()
endfunction()

# Each kernel file is optimised in every preset, since nothing can be tested on a slow one; but sanitizers make of an -O3
# file four times the work for the compiler.
set(INFERNEO_KERNEL_OPTIMISATION -O3)
if(INFERNEO_SANITIZE)
  set(INFERNEO_KERNEL_OPTIMISATION -O1)
endif()

function(inferneo_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS" ${ARGN})
  if(ROOM_SOURCES)
    add_library(inferneo_${name} STATIC ${ROOM_SOURCES})
    target_link_libraries(inferneo_${name} PUBLIC inferneo_options ${ROOM_DEPENDS})
    if(NOT name STREQUAL kernels)  # each of its files has an instruction set of its own
      use_pch(inferneo_${name} inferneo_pch)
      if(INFERNEO_UNITY)
        set_target_properties(inferneo_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
      endif()
    endif()
  else()
    add_library(inferneo_${name} INTERFACE)
    target_link_libraries(inferneo_${name} INTERFACE inferneo_options ${ROOM_DEPENDS})
  endif()
endfunction()

# inferneo_test_library(<name> SOURCES ... DEPENDS ...): what several test programs share.
function(inferneo_test_library name)
  cmake_parse_arguments(LIBRARY "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${LIBRARY_SOURCES})
  target_link_libraries(${name} PUBLIC inferneo_options ${LIBRARY_DEPENDS})
  # Compiled as the programs are, whose precompiled header it takes.
  target_compile_options(${name} PRIVATE ${INFERNEO_TEST_OPTIONS} -fPIE)
  use_pch(${name} inferneo_test_pch)
  if(INFERNEO_UNITY)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON)
  endif()
endfunction()

function(inferneo_test name)
  cmake_parse_arguments(TEST "TIMING" "LABEL;TIMEOUT" "SOURCES;DEPENDS" ${ARGN})
  if(NOT TEST_LABEL MATCHES "^(fast|full|soak)$")
    message(FATAL_ERROR "inferneo_test(${name}): LABEL must be fast, full or soak")
  endif()
  if(TEST_TIMING)
    list(APPEND TEST_LABEL timing)
  endif()
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 300)
  endif()
  add_executable(${name} ${TEST_SOURCES})
  if(INFERNEO_SANITIZE STREQUAL "thread")
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/tsan_suppressions.cc)
  endif()
  target_link_libraries(${name} PRIVATE ${TEST_DEPENDS} GTest::gtest_main GTest::gmock)
  target_compile_options(${name} PRIVATE ${INFERNEO_TEST_OPTIONS})
  use_pch(${name} inferneo_test_pch)
  if(INFERNEO_PCH)
    target_link_libraries(${name} PRIVATE inferneo_json_instances)
  endif()
  if(INFERNEO_UNITY)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  endif()
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE INFERNEO_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABEL}" TIMEOUT ${TEST_TIMEOUT}
                       ENVIRONMENT "INFERNEO_HOME=${CMAKE_BINARY_DIR}/test-home")
endfunction()
