// What a model's draft is and whether it may be one: which record it would have, and that its tokens are its model's.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "formats/model_directory.h"
#include "inferneo/config.h"
#include "manager/registry_records.h"

namespace inferneo {

inline constexpr const char* kDraftModel = "draft_model";  // the setting

// The model that guesses for this one, as if it were registered: with the same settings, and named by whoever set it.
// `own`: the configuration of the record. None: it has none, or speculation is off.
std::optional<ModelRecord> draft_record(const EngineConfig& own, const ModelRecord& record);

// An error about the draft, as one about the setting that names it.
Error error_of_draft(Error error, const std::string& draft_name);

// invalid_argument, with the first difference, where a token of one is not the same token of the other. Names as the
// operator wrote them. Equal files are not looked into.
Status check_same_vocabulary(const ModelDirectory& model, const std::string& model_name, const ModelDirectory& draft,
                             const std::string& draft_name);

}  // namespace inferneo
