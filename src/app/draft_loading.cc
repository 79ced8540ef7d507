#include "app/draft_loading.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "text/tokenizer.h"

namespace inferneo {
namespace {

constexpr const char* kTokenizerFile = "tokenizer.json";
constexpr size_t kMaxVocabularyBytes = size_t{256} << 20;

// In words; none: every token of one is the same token of the other.
std::optional<std::string> vocabulary_difference(const Tokenizer& model, const Tokenizer& draft) {
  if (model.vocab_size() != draft.vocab_size()) {
    return fmt::format("{} and {} tokens", model.vocab_size(), draft.vocab_size());
  }
  for (Token token = 0; token < model.vocab_size(); ++token) {
    if (model.token_bytes(token) != draft.token_bytes(token)) return fmt::format("token {} is not the same", token);
    if (model.is_special(token) != draft.is_special(token)) {
      return fmt::format("token {} is a control token of one of them alone", token);
    }
  }
  return std::nullopt;
}

Result<std::shared_ptr<const Tokenizer>> tokenizer_of(std::string json) {
  TokenizerFiles files;
  files.tokenizer_json = std::move(json);
  return load_tokenizer(files);
}

}  // namespace

std::optional<ModelRecord> draft_record(const EngineConfig& own, const ModelRecord& record) {
  if (!own.enable_speculative_decoding || own.draft_model.empty()) return std::nullopt;
  ModelRecord draft = record;
  draft.source = own.draft_model;
  draft.revision.clear();
  draft.format.reset();
  if (!record.settings.contains(kDraftModel)) draft.origin = RecordOrigin::config;  // the server's own setting
  return draft;
}

Error error_of_draft(Error error, const std::string& draft_name) {
  error.message = fmt::format("{} {}: {}", kDraftModel, draft_name, error.message);
  error.param = kDraftModel;
  return error;
}

Status check_same_vocabulary(const ModelDirectory& model, const std::string& model_name, const ModelDirectory& draft,
                             const std::string& draft_name) {
  ASSIGN_OR_RETURN(std::string own, model.read(kTokenizerFile, kMaxVocabularyBytes));
  ASSIGN_OR_RETURN(std::string other, draft.read(kTokenizerFile, kMaxVocabularyBytes));
  if (own == other) return ok_status();
  ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> of_model, tokenizer_of(std::move(own)));
  ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> of_draft, tokenizer_of(std::move(other)));
  const std::optional<std::string> difference = vocabulary_difference(*of_model, *of_draft);
  if (!difference) return ok_status();
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("{} cannot guess for {}: their vocabularies differ ({}); a draft model needs the tokens "
                  "of its model",
                  draft_name, model_name, *difference),
      kDraftModel);
}

}  // namespace inferneo
