// Values of options of the form NAME=VALUE, and a chat template out of a file.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cli/command.h"

namespace inferneo {

inline constexpr CommandOption kTemplateOption = {"--chat-template", "FILE",
                                                  "Jinja file whose text replaces the model's own template"};

// invalid_argument for what has no name, and for a name twice; `what` begins the message.
Result<std::map<std::string, std::string>> named_values(std::span<const std::string> pairs, std::string_view what);
Result<std::map<std::string, std::string>> named_values(const Invocation& invocation, std::string_view flag);

// The text of the file that --chat-template names; none: it is not given. The file's errors.
Result<std::optional<std::string>> template_option(const Invocation& invocation, const Environment& environment);

}  // namespace inferneo
