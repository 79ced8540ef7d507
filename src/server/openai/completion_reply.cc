#include "server/openai/completion_reply.h"

#include <utility>

#include "server/head_traits.h"
#include "server/openai/openai_routes.h"
#include "server/rate_limits.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

constexpr std::string_view kCompletionObject = "text_completion";

class PromptSink final : public OutputSink {
 public:
  PromptSink(std::shared_ptr<CompletionReply> reply, size_t prompt) : reply_(std::move(reply)), prompt_(prompt) {}
  void on_route(std::string route) override { reply_->on_route(route); }
  void on_prompt(PromptInfo info) override { reply_->on_prompt(prompt_, std::move(info)); }
  void on_delta(OutputDelta delta) override { reply_->on_delta(prompt_, std::move(delta)); }
  void on_done(GenerateOutcome outcome) override { reply_->on_done(prompt_, std::move(outcome)); }

 private:
  std::shared_ptr<CompletionReply> reply_;
  size_t prompt_;
};

}  // namespace

CompletionReply::CompletionReply(const InferenceService& service, std::shared_ptr<Exchange> exchange,
                                 RequestDraft draft)
    : service_(service),
      exchange_(std::move(exchange)),
      draft_(std::move(draft)),
      id_("cmpl-" + exchange_->request_id()),
      created_(seconds_since_epoch()),
      prefix_(reply_prefix(id_, kCompletionObject, created_, draft_.request.model)),
      prompts_(draft_.prompts.size()),
      choices_(draft_.prompts.size() * static_cast<size_t>(draft_.request.sampling.n)) {
  draft_.prompts.clear();
}

void CompletionReply::on_prompt(size_t prompt, PromptInfo info) {
  const std::lock_guard lock(mutex_);
  if (!info.model.empty()) prefix_ = reply_prefix(id_, kCompletionObject, created_, info.model);
  prompts_[prompt] = std::move(info);
}

void CompletionReply::on_delta(size_t prompt, OutputDelta delta) {
  const std::lock_guard lock(mutex_);
  const size_t index = prompt * static_cast<size_t>(draft_.request.sampling.n) + static_cast<size_t>(delta.sample);
  Choice& choice = choices_.at(index);
  if (!std::exchange(choice.begun, true) && draft_.request.sampling.echo) {
    choice.text = prompts_[prompt].echo_text;
    if (draft_.wants_logprobs) choice.tokens = echoed_tokens(prompts_[prompt]);
  }
  choice.text += delta.text;
  choice.num_tokens += static_cast<int32_t>(delta.tokens.size());
  for (TokenLogprobText& token : delta.logprobs) choice.tokens.push_back(CompletionToken{std::move(token), true});
  if (delta.finish) {
    choice.finish = delta.finish;
    choice.stop_reason = std::move(delta.stop_reason);
  }
  if (!draft_.stream) return;
  if (choice.text.empty() && choice.tokens.empty() && !choice.finish) return;
  exchange_->write_event(chunk(index, choice, choice.text_offset));
  choice.text.clear();
  choice.tokens.clear();
}

void CompletionReply::write_choice(JsonWriter& json, size_t index, const Choice& choice, int64_t& text_offset) const {
  json.begin_object().field("index", index).field("text", choice.text).key("logprobs");
  if (draft_.wants_logprobs) {
    write_completion_logprobs(json, choice.tokens, draft_.token_ids_as_text, text_offset);
  } else {
    json.null();
  }
  json.key("finish_reason");
  if (choice.finish) {
    json.string(finish_reason_name(*choice.finish, false));
  } else {
    json.null();
  }
  write_stop_reason(json, choice.stop_reason, draft_.request.sampling.stop);
  if (!draft_.stream && draft_.request.sampling.prompt_logprobs) {
    json.key("prompt_logprobs");
    write_prompt_logprobs(json, prompts_[index / static_cast<size_t>(draft_.request.sampling.n)]);
  }
  json.end_object();
}

std::string CompletionReply::chunk(size_t index, const Choice& choice, int64_t& text_offset) const {
  JsonWriter json("data: " + prefix_ + ",\"choices\":[");
  write_choice(json, index, choice, text_offset);
  std::optional<Usage> so_far;
  if (draft_.continuous_usage) {
    const PromptInfo& prompt = prompts_[index / static_cast<size_t>(draft_.request.sampling.n)];
    so_far = Usage{static_cast<int32_t>(prompt.tokens.size()), 0, choice.num_tokens};
  }
  return json.take() + chunk_end(draft_.include_usage, so_far);
}

std::string CompletionReply::whole_reply() {
  JsonWriter json(prefix_ + ",\"choices\":");
  json.begin_array();
  for (size_t i = 0; i < choices_.size(); ++i) write_choice(json, i, choices_[i], choices_[i].text_offset);
  json.end_array().key("usage");
  write_usage(json, usage_);
  return json.take() + "}";
}

void CompletionReply::on_done(size_t, GenerateOutcome outcome) {
  const std::lock_guard lock(mutex_);
  ++num_done_;
  if (failed_) return;
  if (outcome.error) {
    failed_ = true;
    const Error error = as_sent(std::move(*outcome.error), draft_);
    exchange_->fail(with_retry_after(service_, draft_.request.model, error));
    return;
  }
  usage_.prompt_tokens += outcome.usage.prompt_tokens;
  usage_.cached_tokens += outcome.usage.cached_tokens;
  usage_.draft_tokens += outcome.usage.draft_tokens;
  usage_.accepted_tokens += outcome.usage.accepted_tokens;
  usage_.completion_tokens += outcome.usage.completion_tokens;
  usage_.from_cache |= outcome.usage.from_cache;
  usage_.cached_completion_tokens += outcome.usage.cached_completion_tokens;
  if (num_done_ < prompts_.size()) return;
  if (!draft_.stream) {
    HttpResponse response;
    response.body = whole_reply();
    exchange_->respond(std::move(response));
    return;
  }
  std::string last;
  if (draft_.include_usage) {
    JsonWriter json;
    write_usage(json, usage_);
    last = "data: " + prefix_ + ",\"choices\":[],\"usage\":" + json.take() + "}\n\n";
  }
  exchange_->write_event(last + "data: [DONE]\n\n");
  exchange_->finish_stream();
}

void handle_completion(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  std::shared_ptr<AdmissionTicket> ticket;
  if (!admit(service, exchange, ticket)) return;
  Result<RequestDraft> parsed = parse_completion_request(exchange->take_body());
  if (!parsed.ok()) return exchange->fail(parsed.error());
  RequestDraft draft = std::move(parsed).value();
  auto prompts = draft.prompts;
  if (service.wants_traits()) add_head_traits(exchange->request().head, draft.request.traits);
  GenerateRequest request = draft.request;
  request.request_id = exchange->request_id();
  request.trace = exchange->request().trace;
  request.whole = !draft.stream;
  if (draft.stream) {
    exchange->expect_stream([&service, model = draft.request.model] { return wait_comment(service, model); });
  }
  auto reply = std::make_shared<CompletionReply>(service, exchange, std::move(draft));
  auto handles = std::make_shared<std::vector<std::shared_ptr<GenerationHandle>>>();
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerateRequest one = request;
    one.ticket = i + 1 < prompts.size() ? ticket : std::move(ticket);  // nothing else holds the place
    if (auto* text = std::get_if<std::string>(&prompts[i])) {
      one.prompt = std::move(*text);
    } else {
      one.prompt = std::move(std::get<std::vector<Token>>(prompts[i]));
    }
    handles->push_back(service.generate(std::move(one), std::make_shared<PromptSink>(reply, i)));
  }
  // The answer ends with the first error; the connection then abandons the exchange, and with it the other prompts.
  exchange->on_abandoned([handles] {
    for (const auto& handle : *handles) handle->cancel();
  });
}

}  // namespace inferneo
