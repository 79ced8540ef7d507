// What a registration and its settings are checked for before they are kept (model_loading.h).
#include <optional>

#include "app/draft_loading.h"
#include "app/model_files.h"
#include "app/model_loading.h"

namespace inferneo {

Status check_settings(const EngineConfig& config, const ModelRecord& record) {
  ASSIGN_OR_RETURN(const EngineConfig own, model_config(config, record));
  const std::string* const text = template_text_of(record);
  return text == nullptr ? ok_status() : check_template_text(*text);
}

Status check_registration(const EngineConfig& config, const ModelRecord& record) {
  RETURN_IF_ERROR(check_settings(config, record));
  if (record.origin != RecordOrigin::api) return ok_status();
  const Result<ModelSource> source = find_model_source(config, record);
  if (!source.ok() && source.error().code != ErrorCode::not_found) return source.error();
  ASSIGN_OR_RETURN(const EngineConfig own, model_config(config, record));
  const std::optional<ModelRecord> draft = draft_record(own, record);
  if (!draft) return ok_status();
  const Result<ModelSource> draft_source = find_model_source(config, *draft);
  if (draft_source.ok() || draft_source.error().code == ErrorCode::not_found) return ok_status();
  return error_of_draft(draft_source.error(), draft->source);
}

}  // namespace inferneo
