#include "app/onnx_verification.h"

#include <algorithm>
#include <memory>

#include "models/onnx/onnx_loader.h"
#include "models/onnx/ort_library.h"
#include "models/onnx_convert/verification.h"
#include "models/transformers/loader.h"
#include "tensor/ledger.h"

namespace inferneo {

Result<ConvertVerification> verify_conversion(const ModelDirectory& native, const std::string& converted,
                                              const ConvertOptions& options, ThreadPool& pool,
                                              const std::string& library) {
  if (const auto opened = onnx::OrtLibrary::open(library); !opened.ok()) {
    return ConvertVerification{.reason = opened.error().message};
  }
  MemoryLedger ledger(SIZE_MAX);
  ASSIGN_OR_RETURN(const ModelDirectory directory, ModelDirectory::open(native.name(), converted, {converted}));
  onnx::OnnxLoadOptions graph;
  graph.directory = &directory;
  graph.model_name = native.name() + " (converted)";
  graph.ledger = &ledger;
  graph.pool = &pool;
  graph.library = library;
  graph.check.when = onnx::GraphCheckOptions::When::never;  // it was written just now
  graph.max_model_len = options.max_model_len;
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner, onnx::load_onnx_model(graph));
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
