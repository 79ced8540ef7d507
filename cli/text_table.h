// Rows of cells as lines whose columns line up. Pure. A cell's width is its number of code points.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

struct TextColumn {
  std::string_view title;
  bool right = false;  // numbers
};

// The last column is cut to `width` columns of the screen, where that leaves it anything; 0: nothing is cut.
std::string text_table(const std::vector<TextColumn>& columns, const std::vector<std::vector<std::string>>& rows,
                       size_t width);

}  // namespace inferneo
