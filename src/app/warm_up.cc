#include "app/warm_up.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "base/log.h"
#include "engine/engine_core.h"

namespace inferneo {
namespace {

constexpr Duration kWarmUpLook = std::chrono::milliseconds(200);  // whether the load is still wanted

// The end of a warm-up.
class FirstTokens final : public TokenSink {
 public:
  void on_token(int32_t, Token, const TokenLogprobs*, bool) override {}
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { promise_.set_value(outcome); }

 private:
  std::promise<RequestOutcome> promise_;

 public:
  std::future<RequestOutcome> done = promise_.get_future();
};

}  // namespace

Status warm_up(const LoadedModel& model, const LoadReport& report) {
  // On a CPU a request after 2 tokens took no longer than after 16; a GPU chooses its kernels by the rows.
  const int32_t wanted = model.spec.device.starts_with("cpu") ? 2 : 16;
  const int32_t prompt = std::clamp(model.max_model_len / 2, 1, wanted);
  const auto sink = std::make_shared<FirstTokens>();
  Request request;
  request.prompt.assign(static_cast<size_t>(prompt), 0);
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = std::min(2, model.max_model_len - prompt);
  request.sampling.ignore_eos = true;
  request.sink = sink;
  RETURN_IF_ERROR(report({"warming up"}));
  if (*request.sampling.max_tokens < 1) return ok_status();
  RETURN_IF_ERROR(model.core->warm_up(std::move(request)));
  while (sink->done.wait_for(kWarmUpLook) != std::future_status::ready) RETURN_IF_ERROR(report({"warming up"}));
  const RequestOutcome outcome = sink->done.get();
  if (!outcome.error) return ok_status();
  Error error = *outcome.error;
  if (error.code == ErrorCode::out_of_memory) {  // idle work gets spare memory alone; a request may get more
    log_info("{}: not warmed up, since memory is short", model.id);
    return ok_status();
  }
  error.message = fmt::format("its first tokens could not be computed: {}", error.message);
  return error;
}

}  // namespace inferneo
