// What the tests use of the JSON library, compiled once (json_instances.cc) and not anew in each of a hundred programs.
// For the precompiled header of the tests; without that each file compiles what it needs, as usual.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#ifndef INFERNEO_JSON_INSTANCES
#define INFERNEO_JSON_INSTANCES extern
#endif

#define INFERNEO_JSON_PARSER(json, Adapter)                                                          \
  INFERNEO_JSON_INSTANCES template class nlohmann::detail::lexer<json, Adapter>;                     \
  INFERNEO_JSON_INSTANCES template class nlohmann::detail::parser<json, Adapter>;                    \
  INFERNEO_JSON_INSTANCES template bool nlohmann::detail::parser<json, Adapter>::sax_parse_internal( \
      nlohmann::detail::json_sax_dom_parser<json>*);                                                 \
  INFERNEO_JSON_INSTANCES template bool nlohmann::detail::parser<json, Adapter>::sax_parse_internal( \
      nlohmann::detail::json_sax_dom_callback_parser<json>*);

#define INFERNEO_JSON(json)                                                                         \
  INFERNEO_JSON_INSTANCES template class nlohmann::detail::json_sax_dom_parser<json>;               \
  INFERNEO_JSON_INSTANCES template class nlohmann::detail::json_sax_dom_callback_parser<json>;      \
  INFERNEO_JSON_INSTANCES template class nlohmann::detail::serializer<json>;                        \
  INFERNEO_JSON_PARSER(json, nlohmann::detail::iterator_input_adapter<std::string::const_iterator>) \
  INFERNEO_JSON_PARSER(json, nlohmann::detail::iterator_input_adapter<const char*>)

INFERNEO_JSON_INSTANCES template class nlohmann::basic_json<>;
INFERNEO_JSON_INSTANCES template class nlohmann::basic_json<nlohmann::ordered_map>;
INFERNEO_JSON(nlohmann::json)
INFERNEO_JSON(nlohmann::ordered_json)

#undef INFERNEO_JSON
#undef INFERNEO_JSON_PARSER
#undef INFERNEO_JSON_INSTANCES
