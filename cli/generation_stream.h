// One generation, read by one thread: the service's events come in on its text threads and wait here until next().
//
// cancel() may be called from any thread. Destroying an unfinished stream cancels it; late events then go nowhere.
#pragma once

#include <memory>
#include <optional>

#include "serving/inference_service.h"

namespace inferneo {

class GenerationStream {
 public:
  GenerationStream(InferenceService& service, GenerateRequest request);
  ~GenerationStream();
  GenerationStream(const GenerationStream&) = delete;
  GenerationStream& operator=(const GenerationStream&) = delete;

  std::optional<OutputDelta> next();  // waits; nullopt once the generation is over
  void cancel();
  const GenerateOutcome& outcome() const;  // after next() returned nullopt

 private:
  class Sink;
  std::shared_ptr<Sink> sink_;
  std::shared_ptr<GenerationHandle> handle_;
};

}  // namespace inferneo
