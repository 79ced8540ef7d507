# cmake -DROOT=<folder> -DFILES=<name,name,...> -DOUTPUT=<file.cc> -P embed.cmake
# Writes the files, as they are, into a C++ file that defines page_files() (pages.h).
cmake_minimum_required(VERSION 3.25)
string(REPLACE "," ";" names "${FILES}")
set(rows "")
set(count 0)
foreach(name IN LISTS names)
  file(READ "${ROOT}/${name}" text)
  file(SHA256 "${ROOT}/${name}" digest)
  string(SUBSTRING "${digest}" 0 32 etag)
  # A raw string ends at this mark, which therefore may stand in no file.
  string(FIND "${text}" ")page_text\"" mark)
  if(NOT mark EQUAL -1)
    message(FATAL_ERROR "${name} holds the mark that ends a raw string")
  endif()
  string(APPEND rows "    {\"${name}\", \"\\\"${etag}\\\"\",\n     R\"page_text(${text})page_text\"},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE "${OUTPUT}" "// Made by src/server/pages/embed.cmake.
#include <array>

#include \"server/pages/pages.h\"

namespace inferneo {
namespace {

constexpr std::array<PageFile, ${count}> kFiles{{
${rows}}};

}  // namespace

std::span<const PageFile> page_files() { return kFiles; }

}  // namespace inferneo
")
