#include <cstring>

#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

TEST(Dispatch, ReferenceIsLastAndAlwaysRuns) {
  ASSERT_FALSE(isa_entries().empty());
  EXPECT_EQ(isa_entries().back().name, "reference");
  EXPECT_TRUE(isa_entries().back().supported());
  EXPECT_EQ(isa_entries().back().table(), reference_table());
}

TEST(Dispatch, NoPointerOfAnyTableIsNull) {
  for (const IsaEntry& entry : isa_entries()) {
    const OpTable* table = entry.table();
    ASSERT_NE(table, nullptr);
    EXPECT_EQ(table->name, entry.name);
    EXPECT_GT(table->matmul_row_tile, 0);
    // All members after the name and apart from the tile are pointers.
    const void* words[sizeof(OpTable) / sizeof(void*)];
    std::memcpy(words, table, sizeof(words));
    for (size_t i = sizeof(std::string_view) / sizeof(void*); i < std::size(words); ++i) EXPECT_NE(words[i], nullptr);
  }
}

TEST(Dispatch, SelectsByNameAndRefusesUnknownNames) {
  for (const OpTable* table : testing::runnable_tables()) {
    auto selected = select_op_table(table->name);
    ASSERT_TRUE(selected.ok());
    EXPECT_EQ(*selected, table);
  }
  ASSERT_TRUE(select_op_table().ok());
  EXPECT_EQ(*select_op_table(), testing::runnable_tables().front());
  auto unknown = select_op_table("mmx");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(unknown.error().param, "isa");
  EXPECT_NE(unknown.error().message.find("reference"), std::string::npos);
}

}  // namespace
}  // namespace inferneo::kernels
