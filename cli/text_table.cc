#include "cli/text_table.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kShortest = 12;  // of a column that is cut

bool begins_code_point(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), begins_code_point));
}

std::string cut(const std::string& text, size_t width) {
  if (width_of(text) <= width) return text;
  size_t bytes = 0;
  for (size_t points = 0; bytes < text.size(); ++bytes) {
    if (begins_code_point(text[bytes]) && points++ == width - 1) break;
  }
  return text.substr(0, bytes) + "\u2026";
}

}  // namespace

std::string text_table(const std::vector<TextColumn>& columns, const std::vector<std::vector<std::string>>& rows,
                       size_t width) {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns.size(); ++i) {
    widths.push_back(columns[i].title.size());
    for (const auto& row : rows) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  size_t before = 0;
  for (size_t i = 0; i + 1 < widths.size(); ++i) before += widths[i] + kGap;
  const bool cuts = width > before + kShortest;
  std::string text;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (size_t i = 0; i < columns.size(); ++i) {
      std::string cell = cell_of(i);
      const bool last = i + 1 == columns.size();
      if (last && cuts) cell = cut(cell, width - before);
      const std::string padding(widths[i] - std::min(widths[i], width_of(cell)), ' ');
      line += columns[i].right ? padding + cell : cell + padding;
      if (!last) line.append(kGap, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add_line([&](size_t i) { return std::string(columns[i].title); });
  for (const auto& row : rows) add_line([&](size_t i) { return row[i]; });
  return text;
}

}  // namespace inferneo
