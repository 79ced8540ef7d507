#include "server/openai/openai_routes.h"

namespace inferneo {
namespace {

using Answer = void (*)(InferenceService&, const std::shared_ptr<Exchange>&);

Handler with(const std::shared_ptr<InferenceService>& service, Answer answer) {
  return [service, answer](std::shared_ptr<Exchange> exchange) { answer(*service, exchange); };
}

Handler not_there_yet(std::string what) {
  return [what = std::move(what)](std::shared_ptr<Exchange> exchange) {
    exchange->fail(make_error(ErrorCode::unsupported, what + " is not implemented in this version of Inferneo."));
  };
}

}  // namespace

std::vector<Route> openai_routes(std::shared_ptr<InferenceService> service) {
  constexpr AuthPolicy kKey = AuthPolicy::api_key;
  return {
      Route(Method::post, "/v1/chat/completions", kKey, with(service, handle_chat)),
      Route(Method::post, "/v1/completions", kKey, with(service, handle_completion)),
      Route(Method::post, "/v1/feedback", kKey, with(service, handle_feedback)),
      Route(Method::get, "/v1/models", kKey, with(service, handle_list_models)),
      Route(Method::get, "/v1/models/{id}", kKey, with(service, handle_get_model)),
      Route(Method::post, "/tokenize", kKey,
            [service](std::shared_ptr<Exchange> exchange) { handle_tokenize(service, exchange); }),
      Route(Method::post, "/detokenize", kKey,
            [service](std::shared_ptr<Exchange> exchange) { handle_detokenize(service, exchange); }),
      Route(Method::post, "/v1/responses", kKey, not_there_yet("The responses API (/v1/responses)")),
      Route(Method::get, "/v1/responses/{id}", kKey, not_there_yet("The responses API (/v1/responses)")),
      Route(Method::post, "/v1/embeddings", kKey, with(service, handle_embeddings)),
      Route(Method::post, "/v1/load_lora_adapter", kKey, not_there_yet("Loading LoRA adapters")),
      Route(Method::post, "/v1/unload_lora_adapter", kKey, not_there_yet("Unloading LoRA adapters")),
  };
}

}  // namespace inferneo
