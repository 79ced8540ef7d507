// Whether a condition makes sense: fields exist, operators and values go with them. What it makes is ready to evaluate.
#pragma once

#include <string_view>

#include "routing/condition.h"

namespace inferneo {

// `text` is what `syntax` was parsed from. False: `fault` says why.
bool check_condition(std::string_view text, const SyntaxNode& syntax, ConditionNode& node, ConditionFault& fault);

}  // namespace inferneo
