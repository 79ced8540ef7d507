# The Rust static library for tokenizers, chat templates and grammars, built by cargo; all presets share one build.
if(DEFINED ENV{CARGO_TARGET_DIR})
  set(INFERNEO_RUST_TARGET_DIR $ENV{CARGO_TARGET_DIR})
else()
  set(INFERNEO_RUST_TARGET_DIR ${CMAKE_SOURCE_DIR}/build/rust)
endif()
find_program(INFERNEO_CARGO cargo HINTS $ENV{HOME}/.cargo/bin REQUIRED)
# Versioned packages keep their rustc beside their cargo (/usr/lib/rust-1.85/bin), where PATH does not look.
get_filename_component(INFERNEO_CARGO_FOLDER ${INFERNEO_CARGO} DIRECTORY)
set(INFERNEO_CARGO_ENV)
if(INFERNEO_CARGO_FOLDER MATCHES "/rust-[0-9.]+/bin$")
  set(INFERNEO_CARGO_ENV ${CMAKE_COMMAND} -E env RUSTC=${INFERNEO_CARGO_FOLDER}/rustc)
endif()
set(INFERNEO_TEXT_LIB ${INFERNEO_RUST_TARGET_DIR}/release/libinferneo_text.a)
file(GLOB_RECURSE INFERNEO_TEXT_RUST CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/rust/text/src/*.rs)
add_custom_command(
  OUTPUT ${INFERNEO_TEXT_LIB}
  COMMAND ${INFERNEO_CARGO_ENV} ${INFERNEO_CARGO} build --release --locked --manifest-path ${CMAKE_SOURCE_DIR}/rust/text/Cargo.toml
          --target-dir ${INFERNEO_RUST_TARGET_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${INFERNEO_TEXT_LIB}
  DEPENDS ${INFERNEO_TEXT_RUST} ${CMAKE_SOURCE_DIR}/rust/text/Cargo.toml ${CMAKE_SOURCE_DIR}/rust/text/Cargo.lock
  COMMENT "cargo: rust/text" USES_TERMINAL VERBATIM)
add_custom_target(inferneo_text_rust_build DEPENDS ${INFERNEO_TEXT_LIB})
add_library(inferneo_text_rust INTERFACE)
add_dependencies(inferneo_text_rust inferneo_text_rust_build)
target_link_libraries(inferneo_text_rust INTERFACE ${INFERNEO_TEXT_LIB} dl m)
