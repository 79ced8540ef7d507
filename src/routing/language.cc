#include "routing/language.h"

#include <algorithm>
#include <array>

#include "routing/text_match.h"

namespace inferneo {
namespace {

constexpr size_t kLongestLook = size_t{64} * 1024;

constexpr std::array<std::string_view, 35> kNames = {
    "bash",     "c",      "cpp",         "csharp",     "css",  "dart",       "dockerfile", "elixir", "go",
    "haskell",  "html",   "java",        "javascript", "json", "julia",      "kotlin",     "lua",    "makefile",
    "markdown", "matlab", "objective-c", "perl",       "php",  "powershell", "python",     "r",      "ruby",
    "rust",     "scala",  "sql",         "swift",      "toml", "typescript", "xml",        "yaml"};

struct Tag {
  std::string_view tag;
  std::string_view language;
};
constexpr Tag kShortNames[] = {
    {"sh", "bash"},        {"shell", "bash"},      {"zsh", "bash"},          {"h", "c"},
    {"c++", "cpp"},        {"cc", "cpp"},          {"cxx", "cpp"},           {"hpp", "cpp"},
    {"c#", "csharp"},      {"cs", "csharp"},       {"docker", "dockerfile"}, {"ex", "elixir"},
    {"golang", "go"},      {"hs", "haskell"},      {"htm", "html"},          {"js", "javascript"},
    {"jsx", "javascript"}, {"node", "javascript"}, {"jl", "julia"},          {"kt", "kotlin"},
    {"make", "makefile"},  {"md", "markdown"},     {"objc", "objective-c"},  {"pl", "perl"},
    {"ps1", "powershell"}, {"pwsh", "powershell"}, {"py", "python"},         {"python2", "python"},
    {"python3", "python"}, {"rb", "ruby"},         {"rs", "rust"},           {"postgresql", "sql"},
    {"mysql", "sql"},      {"ts", "typescript"},   {"tsx", "typescript"},    {"yml", "yaml"},
};

struct LineStart {
  std::string_view start;
  std::string_view part;  // what the rest of the line has as well
  std::string_view end;   // how the line ends
  std::string_view language;
  bool one_word = false;  // between the start and the part
};
constexpr LineStart kLineStarts[] = {
    {"def ", "(", ":", "python"},
    {"class ", "(", "):", "python"},
    {"from ", " import ", "", "python", true},
    {"async def ", "(", ":", "python"},
    {"if __name__ ==", "", ":", "python"},
    {"fn main(", "", "", "rust"},
    {"pub fn ", "(", "", "rust"},
    {"use std::", "", ";", "rust"},
    {"package main", "", "", "go"},
    {"func main()", "", "{", "go"},
    {"#include <iostream>", "", "", "cpp"},
    {"using namespace std", "", ";", "cpp"},
    {"template <", ">", "", "cpp"},
    {"template<", ">", "", "cpp"},
    {"std::", "", ";", "cpp"},
    {"#include <stdio.h>", "", "", "c"},
    {"#include <stdlib.h>", "", "", "c"},
    {"import java.", "", ";", "java"},
    {"public static void main(String", "", "", "java"},
    {"using System", "", ";", "csharp"},
    {"console.log(", "", "", "javascript"},
    {"const ", "require(", "", "javascript"},
    {"import {", "} from ", "", "javascript"},
    {"<?php", "", "", "php"},
    {"<!DOCTYPE html", "", "", "html"},
    {"<html", "", "", "html"},
    {"CREATE TABLE ", "(", "", "sql"},
    {"INSERT INTO ", " VALUES", "", "sql"},
    {"SELECT ", " FROM ", "", "sql"},
};

constexpr Tag kInterpreters[] = {
    {"python", "python"}, {"bash", "bash"}, {"zsh", "bash"}, {"node", "javascript"}, {"ruby", "ruby"},
    {"perl", "perl"},     {"php", "php"},   {"lua", "lua"},  {"sh", "bash"},
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trimmed(std::string_view line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  while (!line.empty() && is_blank(line.back())) line.remove_suffix(1);
  return line;
}

// The first word of what follows the fence: ```python title="x"
std::string_view fence_language(std::string_view line) {
  line = trimmed(line.substr(3));
  const size_t end = line.find_first_of(" \t{,:`");
  return language_of_tag(line.substr(0, end));
}

std::string_view shebang_language(std::string_view line) {
  for (const Tag& interpreter : kInterpreters) {
    const size_t at = line.rfind(interpreter.tag);
    if (at != std::string_view::npos && at > 0 && (line[at - 1] == '/' || line[at - 1] == ' '))
      return interpreter.language;
  }
  return {};
}

std::string_view line_language(std::string_view line) {
  for (const LineStart& row : kLineStarts) {
    if (line.front() != row.start.front() || !line.starts_with(row.start) || !line.ends_with(row.end)) continue;
    const size_t part = line.find(row.part, row.start.size());
    if (part == std::string_view::npos) continue;
    if (!row.one_word || line.find(' ', row.start.size()) >= part) return row.language;
  }
  return {};
}

}  // namespace

std::span<const std::string_view> language_names() { return kNames; }

std::string_view language_of_tag(std::string_view tag) {
  if (tag.empty() || tag.size() > 16) return {};
  const auto name = std::find_if(kNames.begin(), kNames.end(),
                                 [&](std::string_view known) { return equal_ignoring_case(known, tag); });
  if (name != kNames.end()) return *name;
  for (const Tag& known : kShortNames) {
    if (equal_ignoring_case(known.tag, tag)) return known.language;
  }
  return {};
}

std::string_view detect_language(std::string_view text) {
  text = text.substr(0, kLongestLook);
  std::string_view by_shebang;
  std::string_view by_start;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    if (line.starts_with("```") || line.starts_with("~~~")) {
      if (const std::string_view language = fence_language(line); !language.empty()) return language;
    } else if (line.starts_with("#!")) {
      if (by_shebang.empty()) by_shebang = shebang_language(line);
    } else if (by_start.empty()) {
      by_start = line_language(line);
    }
  }
  return by_shebang.empty() ? by_start : by_shebang;
}

}  // namespace inferneo
