// `tools` and `tool_choice` of a chat request.
//
// auto: the model writes calls in its template's own form, and a parser finds them. required and a named function:
// the output is constrained by a grammar to plain JSON that is the same for every model (a list of
// {"name", "arguments"}, or the arguments alone), so that a call comes back whatever the model prefers.
#pragma once

#include "base/result.h"
#include "server/json.h"
#include "server/openai/request_draft.h"

namespace inferneo {

Status read_tools(const Json& body, RequestDraft& draft);

}  // namespace inferneo
