// The dashboard: one page and its parts, embedded in the program at build time.
//
// `GET /` is the page, `GET /ui/{path}` its styles and scripts. Both answer anybody, also while models are loading:
// they hold nothing but text that is the same everywhere; what they show comes from the API and asks for its keys.
// The policies that go out with them let a browser run and load nothing from elsewhere.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "server/route_table.h"

namespace inferneo {

struct PageFile {
  std::string_view path;  // below src/server/pages: "index.html", "app/main.js"
  std::string_view etag;  // with its quotes; changes with the text
  std::string_view text;
};

// Made by embed.cmake from the list in CMakeLists.txt.
std::span<const PageFile> page_files();

std::vector<Route> page_routes();

}  // namespace inferneo
