#include "inferneo/engine.h"

#include <utility>

#include "app/application.h"
#include "app/generation_future.h"

namespace inferneo {

struct InferneoEngine::Impl {
  EngineConfig config;
  std::unique_ptr<Application> application;
};

InferneoEngine::InferneoEngine(EngineConfig config) : impl_(std::make_unique<Impl>()) {
  impl_->config = std::move(config);
}

InferneoEngine::~InferneoEngine() = default;

Status InferneoEngine::start(const std::stop_token& stop) {
  if (impl_->application != nullptr) {
    return make_error(ErrorCode::already_exists, "the engine has been started already");
  }
  ASSIGN_OR_RETURN(auto application, Application::create(impl_->config, {.tells_causes = true}));
  RETURN_IF_ERROR(application->load_models(stop));
  impl_->application = std::move(application);
  return ok_status();
}

void InferneoEngine::stop() { impl_->application.reset(); }

std::future<Result<GenerationResult>> InferneoEngine::generate(std::string prompt, SamplingParams sampling,
                                                               std::string model) {
  return generate_stream(std::move(prompt), std::move(sampling), {}, std::move(model));
}

std::future<Result<GenerationResult>> InferneoEngine::generate_stream(std::string prompt, SamplingParams sampling,
                                                                      TextCallback on_text, std::string model) {
  if (impl_->application == nullptr) return failed_generation(engine_not_running());
  return generate_future(impl_->application->service(),
                         plain_request(std::move(prompt), std::move(sampling), std::move(model)), std::move(on_text));
}

GenerationTicket InferneoEngine::submit(std::string prompt, SamplingParams sampling, GenerationCallbacks callbacks,
                                        std::string model) {
  if (impl_->application == nullptr) return failed_submission(engine_not_running(), callbacks);
  return submit_generation(impl_->application->service(),
                           plain_request(std::move(prompt), std::move(sampling), std::move(model)),
                           std::move(callbacks));
}

std::future<Result<EmbeddingResult>> InferneoEngine::embed(std::vector<std::string> texts, EmbeddingOptions options,
                                                           std::string model) {
  return embedding_future([&](EmbeddingCallback on_done) {
    submit_embedding(std::move(texts), options, std::move(on_done), std::move(model));
  });
}

GenerationTicket InferneoEngine::submit_embedding(std::vector<std::string> texts, EmbeddingOptions options,
                                                  EmbeddingCallback on_done, std::string model) {
  if (impl_->application == nullptr) {
    on_done(engine_not_running());
    return {};
  }
  return inferneo::submit_embedding(impl_->application->service(),
                                    embed_request(std::move(texts), options, std::move(model)), std::move(on_done));
}

}  // namespace inferneo
