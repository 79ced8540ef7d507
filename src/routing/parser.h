// The grammar of conditions (EBNF as in ISO 14977; words in any case). `not` binds tightest, then `and`, then `or`; a
// list of values with `or` between them belongs to the operator before it.
//
//   condition  = conjunction , { "or" , conjunction } ;
//   conjunction = negation , { "and" , negation } ;
//   negation   = "not" , negation | "(" , condition , ")" | "true" | "false" | test ;
//   test       = field , [ comparison ] ;
//   field      = word , [ "[" , text , "]" | "(" , text , ")" ] ;
//   comparison = [ "not" ] , finder , value , { "or" , value }
//              | ( "==" | "equals" | "iequals" ) , value , { "or" , value }
//              | "!=" , value
//              | [ "not" ] , ( "in" | "iin" ) , "(" , value , { "," , value } , ")"
//              | ( "<" | "<=" | ">" | ">=" ) , value
//              | [ "not" ] , "between" , value , "and" , value ;
//   finder     = "contains" | "icontains" | "matches"
//              | ( "starts" | "ends" | "istarts" | "iends" ) , "with" ;
//   value      = text | number | regex | "true" | "false" ;
//   text       = "'" , { character | escape } , "'" | '"' , { character | escape } , '"' ;
//   escape     = "\" , ( "\" | "'" | '"' | "n" | "r" | "t" ) ;
//   number     = [ "-" ] , digit , { digit } , [ "." , { digit } ] ;
//   regex      = "/" , { character | "\/" } , "/" , { "i" | "m" | "s" } ;
#pragma once

#include <optional>
#include <vector>

#include "routing/syntax.h"

namespace inferneo {

inline constexpr int kMaxConditionDepth = 32;       // of parentheses and `not`
inline constexpr size_t kMaxConditionValues = 256;  // of a condition; a test without any counts as one

// Of tokens as tokenize_condition() makes them. None: `fault` says why.
std::optional<SyntaxNode> parse_condition(const std::vector<RoutingToken>& tokens, ConditionFault& fault);

}  // namespace inferneo
