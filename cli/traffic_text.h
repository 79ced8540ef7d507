// What the commands about rules and A/B tests print: answers of the admin routes as tables and sentences.
//
// Pure. Answers come from elsewhere: texts are made fit for one line of a terminal, and what is missing shows as "-".
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace inferneo {

std::string rules_text(const nlohmann::json& list, size_t width);
std::string rule_text_of(const nlohmann::json& rule);
std::string routing_text_of(const nlohmann::json& options);
std::string tests_text(const nlohmann::json& list, size_t width);
std::string test_text_of(const nlohmann::json& test, size_t width);
std::string explanation_text(const nlohmann::json& explanation);

}  // namespace inferneo
