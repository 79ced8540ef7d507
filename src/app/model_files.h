// From the record of a model to what is read before its weights: its own configuration, where its files lie, its
// tokenizer. Pure but for the files that are read; thread-safe.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "formats/generation_config.h"
#include "formats/model_directory.h"
#include "formats/model_source.h"
#include "inferneo/config.h"
#include "manager/loaded_model.h"
#include "manager/registry_records.h"
#include "tensor/cache_memory.h"
#include "text/tokenizer.h"

namespace inferneo {

// The engine's configuration for one model: the server's, with what the model's record sets. invalid_argument names the
// setting.
Result<EngineConfig> model_config(const EngineConfig& server, const ModelRecord& record);

// As it is written after MODEL on a command line.
std::string source_text(const ModelRecord& record);
Result<HubId> model_hub_id(const ModelRecord& record);
bool is_on_hub(const ModelRecord& record);  // a hub id, and no path to something that is here
Result<ModelSource> find_model_source(const EngineConfig& config, const ModelRecord& record);

// The template that came with a registration over the API, which holds its text, where the operator's own names a file.
// Null: none did.
const std::string* template_text_of(const ModelRecord& record);
Status check_template_text(const std::string& text);

// `text`: of the model's record; null: it has none. `memory`: for what it remembers; null: nothing.
Result<std::shared_ptr<const Tokenizer>> load_model_tokenizer(const ModelDirectory& directory,
                                                              const EngineConfig& config, const std::string* text,
                                                              const std::shared_ptr<CacheMemory>& memory);
GenerationDefaults generation_defaults(const GenerationConfig& parsed);

}  // namespace inferneo
