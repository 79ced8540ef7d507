# The Rust static library for tokenizers, chat templates and grammars, built by cargo; presets of one INFERNEO_RUST_PROFILE
# (Cargo.toml says what they are) share one build.
set(INFERNEO_RUST_PROFILE release CACHE STRING "Cargo's profile: release, or ci, which compiles sooner and runs slower")
if(DEFINED ENV{CARGO_TARGET_DIR})
  set(INFERNEO_RUST_TARGET_DIR $ENV{CARGO_TARGET_DIR})
else()
  set(INFERNEO_RUST_TARGET_DIR ${CMAKE_SOURCE_DIR}/build/rust)
endif()
# The Rust that the locked packages need stands in Cargo.toml, and nowhere else.
file(STRINGS ${CMAKE_SOURCE_DIR}/rust/text/Cargo.toml INFERNEO_RUST_NEEDED REGEX "^rust-version")
string(REGEX MATCH "[0-9][0-9.]*" INFERNEO_RUST_NEEDED "${INFERNEO_RUST_NEEDED}")
function(inferneo_cargo_will_do result cargo)
  execute_process(COMMAND ${cargo} --version OUTPUT_VARIABLE version ERROR_QUIET)
  string(REGEX MATCH "[0-9]+[.][0-9.]+" version "${version}")
  if(NOT version OR version VERSION_LESS INFERNEO_RUST_NEEDED)
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()
# Versioned packages keep their cargo and rustc where PATH does not look (/usr/lib/rust-1.91/bin on Ubuntu).
file(GLOB INFERNEO_CARGO_FOLDERS /usr/lib/rust-*/bin)
list(SORT INFERNEO_CARGO_FOLDERS COMPARE NATURAL ORDER DESCENDING)
find_program(INFERNEO_CARGO cargo HINTS $ENV{HOME}/.cargo/bin PATHS ${INFERNEO_CARGO_FOLDERS} VALIDATOR inferneo_cargo_will_do)
if(NOT INFERNEO_CARGO)
  message(FATAL_ERROR "No cargo ${INFERNEO_RUST_NEEDED} or newer: scripts/quickstart.sh installs one; so does https://rustup.rs")
endif()
get_filename_component(INFERNEO_CARGO_FOLDER ${INFERNEO_CARGO} DIRECTORY)
set(INFERNEO_CARGO_ENV)
if(INFERNEO_CARGO_FOLDER MATCHES "/rust-[0-9.]+/bin$")
  set(INFERNEO_CARGO_ENV ${CMAKE_COMMAND} -E env RUSTC=${INFERNEO_CARGO_FOLDER}/rustc)
endif()
set(INFERNEO_TEXT_LIB ${INFERNEO_RUST_TARGET_DIR}/${INFERNEO_RUST_PROFILE}/libinferneo_text.a)
file(GLOB_RECURSE INFERNEO_TEXT_RUST CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/rust/text/src/*.rs)
add_custom_command(
  OUTPUT ${INFERNEO_TEXT_LIB}
  COMMAND ${INFERNEO_CARGO_ENV} ${INFERNEO_CARGO} build --profile ${INFERNEO_RUST_PROFILE} --locked --manifest-path ${CMAKE_SOURCE_DIR}/rust/text/Cargo.toml
          --target-dir ${INFERNEO_RUST_TARGET_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${INFERNEO_TEXT_LIB}
  DEPENDS ${INFERNEO_TEXT_RUST} ${CMAKE_SOURCE_DIR}/rust/text/Cargo.toml ${CMAKE_SOURCE_DIR}/rust/text/Cargo.lock
  COMMENT "cargo: rust/text" USES_TERMINAL VERBATIM)
add_custom_target(inferneo_text_rust_build DEPENDS ${INFERNEO_TEXT_LIB})
add_library(inferneo_text_rust INTERFACE)
add_dependencies(inferneo_text_rust inferneo_text_rust_build)
target_link_libraries(inferneo_text_rust INTERFACE ${INFERNEO_TEXT_LIB} dl m)
