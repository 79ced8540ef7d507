#include "app/onnx_verification.h"

#include <algorithm>

#include "models/onnx_convert/verification.h"
#include "models/transformers/loader.h"
#include "tensor/ledger.h"

namespace inferneo {

ConvertedLoader converted_model_loader() { return {}; }

Result<ConvertVerification> verify_conversion(const ModelDirectory& native, const std::string& converted,
                                              const ConvertOptions& options, ThreadPool& pool,
                                              const ConvertedLoader& load_converted) {
  if (!load_converted) {
    return ConvertVerification{.reason =
                                   "this build cannot run ONNX models, so the result was not compared with the "
                                   "native model"};
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner, load_converted(converted));
  MemoryLedger ledger(SIZE_MAX);
  LoadOptions load;
  load.directory = &native;
  load.model_name = native.name();
  load.ledger = &ledger;
  load.pool = &pool;
  load.kv_cache_dtype = "f32";
  load.max_model_len = options.max_model_len;  // longrope chooses its factors by it
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> reference, load_transformers_model(load));
  const int32_t context = options.max_model_len == 0 ? reference->spec().max_position : options.max_model_len;
  const int32_t tokens = std::min(context, kVerifiedTokens);
  ASSIGN_OR_RETURN(const SequenceLogits expected, logits_of(*reference, tokens));
  ASSIGN_OR_RETURN(const SequenceLogits got, logits_of(*runner, tokens));
  const double bound = difference_bound(options.precision, reference->spec().stored_dtype == "bf16");
  ASSIGN_OR_RETURN(ConvertVerification verification,
                   compare_logits(expected, got, reference->spec().vocab_size, tokens, bound));
  RETURN_IF_ERROR(within_bounds(verification));
  return verification;
}

}  // namespace inferneo
