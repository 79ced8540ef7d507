#include "server/openai/chat_reply.h"

#include <algorithm>
#include <span>

#include "server/head_traits.h"
#include "server/openai/openai_routes.h"
#include "server/openai/reply_format.h"
#include "server/rate_limits.h"
#include "server/request_id.h"
#include "server/wait_outlook.h"

namespace inferneo {
namespace {

constexpr size_t kPromptTail = 16;  // tokens: enough for "<think>\n" after a role's header
constexpr std::string_view kObject = "chat.completion";
constexpr std::string_view kChunkObject = "chat.completion.chunk";

}  // namespace

ChatReply::ChatReply(InferenceService& service, std::shared_ptr<Exchange> exchange, RequestDraft draft)
    : service_(service),
      exchange_(std::move(exchange)),
      draft_(std::move(draft)),
      id_("chatcmpl-" + exchange_->request_id()),
      model_(draft_.request.model) {
  const int64_t created = seconds_since_epoch();
  prefix_ = reply_prefix(id_, draft_.stream ? kChunkObject : kObject, created, model_);
}

void ChatReply::on_prompt(PromptInfo info) {
  if (!info.model.empty()) model_ = info.model;
  prefix_ = reply_prefix(id_, draft_.stream ? kChunkObject : kObject, seconds_since_epoch(), model_);
  Result<std::shared_ptr<const Tokenizer>> tokenizer = std::exchange(info.tokenizer, nullptr);
  if (*tokenizer == nullptr) tokenizer = service_.tokenizer(model_);
  if (tokenizer.ok()) {
    format_ = detect_chat_format(**tokenizer, info.chat_template);
    if (format_.reasons) {
      const std::span<const Token> tokens(info.tokens);
      const auto tail = (*tokenizer)->decode(tokens.last(std::min(kPromptTail, tokens.size())), false);
      begins_inside_reasoning_ = tail.ok() && prompt_opens_reasoning(*tail);
    }
  }
  prompt_ = std::move(info);
}

ChatReply::Sample& ChatReply::sample_at(int32_t index) {
  Sample& sample = samples_[index];
  if (!sample.parser) sample.parser = make_output_parser(draft_, format_, begins_inside_reasoning_);
  return sample;
}

bool ChatReply::is_wanted(const OutputEvent& event) const {
  if (event.kind == OutputEvent::Kind::reasoning) return draft_.include_reasoning;
  const bool of_call = event.kind == OutputEvent::Kind::call_begin || event.kind == OutputEvent::Kind::call_arguments;
  return !(of_call && event.call > 0 && !draft_.parallel_tool_calls);
}

void ChatReply::apply(Sample& sample, const OutputEvent& event) {
  switch (event.kind) {
    case OutputEvent::Kind::content:
      sample.content += event.text;
      break;
    case OutputEvent::Kind::reasoning:
      sample.reasoning += event.text;
      break;
    case OutputEvent::Kind::call_begin:
      sample.calls.push_back(ToolCall{new_tool_call_id(format_.tools), event.text, {}});
      break;
    case OutputEvent::Kind::call_arguments:
      sample.calls.back().arguments += event.text;
      break;
  }
}

void ChatReply::on_delta(OutputDelta delta) {
  Sample& sample = sample_at(delta.sample);
  sample.num_tokens += static_cast<int32_t>(delta.tokens.size());
  EventList list;
  sample.parser->push(delta.text, list);
  if (delta.finish) {
    sample.parser->finish(list);
    sample.finish = delta.finish;
    sample.stop_reason = std::move(delta.stop_reason);
  }
  std::vector<OutputEvent> events;
  for (const OutputEvent& event : list.events()) {
    if (is_wanted(event)) events.push_back(event);
  }
  if (draft_.stream) {
    exchange_->write_event(stream_events(delta.sample, sample, events, delta.logprobs));
  } else {
    for (const OutputEvent& event : events) apply(sample, event);
    for (TokenLogprobText& token : delta.logprobs) sample.logprobs.push_back(std::move(token));
  }
}

std::string ChatReply::stream_events(int32_t index, Sample& sample, const std::vector<OutputEvent>& events,
                                     const std::vector<TokenLogprobText>& logprobs) {
  std::string out;
  if (!sample.begun) {
    sample.begun = true;
    out += chunk(index, R"({"role":"assistant","content":""})", nullptr, nullptr);
  }
  const std::vector<TokenLogprobText>* pending = logprobs.empty() ? nullptr : &logprobs;
  for (const OutputEvent& event : events) {
    const std::string delta = delta_of(sample, event);
    out += chunk(index, delta, std::exchange(pending, nullptr), nullptr);
  }
  // Tokens whose text is held back still have their logprobs.
  if (pending != nullptr) out += chunk(index, R"({"content":""})", pending, nullptr);
  if (sample.finish) out += chunk(index, "{}", nullptr, &sample);
  return out;
}

std::string ChatReply::delta_of(Sample& sample, const OutputEvent& event) {
  JsonWriter json;
  json.begin_object();
  if (event.kind == OutputEvent::Kind::content) {
    json.field("content", event.text);
  } else if (event.kind == OutputEvent::Kind::reasoning) {
    json.field("reasoning_content", event.text);
  } else {
    json.key("tool_calls").begin_array().begin_object().field("index", event.call);
    if (event.kind == OutputEvent::Kind::call_begin) {
      sample.calls.push_back(ToolCall{new_tool_call_id(format_.tools), event.text, {}});
      json.field("id", sample.calls.back().id).field("type", "function");
      json.key("function").begin_object().field("name", event.text).field("arguments", "").end_object();
    } else {
      json.key("function").begin_object().field("arguments", event.text).end_object();
    }
    json.end_object().end_array();
  }
  json.end_object();
  return json.take();
}

std::string ChatReply::chunk(int32_t index, std::string_view delta, const std::vector<TokenLogprobText>* logprobs,
                             const Sample* finished) {
  JsonWriter json("data: " + prefix_ + ",\"choices\":[");
  json.begin_object().field("index", index).key("delta").raw(delta).key("logprobs");
  if (logprobs != nullptr) {
    write_chat_logprobs(json, *logprobs, draft_.token_ids_as_text);
  } else {
    json.null();
  }
  json.key("finish_reason");
  if (finished != nullptr) {
    json.string(finish_reason_name(*finished->finish, !finished->calls.empty()));
    write_stop_reason(json, finished->stop_reason, draft_.request.sampling.stop);
  } else {
    json.null();
  }
  json.end_object();
  return json.take() + chunk_end(draft_.include_usage, usage_so_far(index));
}

std::optional<Usage> ChatReply::usage_so_far(int32_t index) const {
  if (!draft_.continuous_usage) return std::nullopt;
  return Usage{static_cast<int32_t>(prompt_.tokens.size()), 0, samples_.at(index).num_tokens};
}

std::string ChatReply::usage_chunk(const Usage& usage) const {
  JsonWriter json;
  write_usage(json, usage);
  return "data: " + prefix_ + ",\"choices\":[],\"usage\":" + json.take() + "}\n\n";
}

void ChatReply::write_message(JsonWriter& json, const Sample& sample) const {
  json.begin_object().field("role", "assistant").key("content");
  if (sample.content.empty() && !sample.calls.empty()) {
    json.null();
  } else {
    json.string(sample.content);
  }
  json.key("refusal").null();
  if (!sample.reasoning.empty()) json.field("reasoning_content", sample.reasoning);
  if (!sample.calls.empty()) {
    json.key("tool_calls").begin_array();
    for (const ToolCall& call : sample.calls) {
      json.begin_object().field("id", call.id).field("type", "function").key("function");
      json.begin_object().field("name", call.name).field("arguments", call.arguments).end_object().end_object();
    }
    json.end_array();
  }
  json.end_object();
}

std::string ChatReply::whole_reply(const Usage& usage) {
  JsonWriter json(prefix_ + ",\"choices\":");
  json.begin_array();
  for (const auto& [index, sample] : samples_) {
    json.begin_object().field("index", index).key("message");
    write_message(json, sample);
    json.key("logprobs");
    if (draft_.wants_logprobs) {
      write_chat_logprobs(json, sample.logprobs, draft_.token_ids_as_text);
    } else {
      json.null();
    }
    json.field("finish_reason",
               finish_reason_name(sample.finish.value_or(FinishReason::failed), !sample.calls.empty()));
    write_stop_reason(json, sample.stop_reason, draft_.request.sampling.stop);
    json.end_object();
  }
  json.end_array().key("usage");
  write_usage(json, usage);
  if (draft_.request.sampling.prompt_logprobs) {
    json.key("prompt_logprobs");
    write_prompt_logprobs(json, prompt_);
  }
  return json.take() + "}";
}

void ChatReply::on_done(GenerateOutcome outcome) {
  if (outcome.error) {
    const Error error = as_sent(std::move(*outcome.error), draft_);
    exchange_->fail(with_retry_after(service_, draft_.request.model, error));
  } else if (draft_.stream) {
    std::string last = draft_.include_usage ? usage_chunk(outcome.usage) : "";
    exchange_->write_event(last + "data: [DONE]\n\n");
    exchange_->finish_stream();
  } else {
    HttpResponse response;
    response.body = whole_reply(outcome.usage);
    exchange_->respond(std::move(response));
  }
}

void handle_chat(InferenceService& service, const std::shared_ptr<Exchange>& exchange) {
  std::shared_ptr<AdmissionTicket> ticket;
  if (!admit(service, exchange, ticket)) return;
  const bool with_traits = service.wants_traits();
  Result<RequestDraft> parsed = parse_chat_request(exchange->take_body(), with_traits);
  if (!parsed.ok()) return exchange->fail(parsed.error());
  RequestDraft draft = std::move(parsed).value();
  if (with_traits) add_head_traits(exchange->request().head, draft.request.traits);
  GenerateRequest request = draft.request;
  draft.request.traits = {};
  request.request_id = exchange->request_id();
  request.trace = exchange->request().trace;
  request.ticket = std::move(ticket);
  request.whole = !draft.stream;
  ChatInput chat;
  chat.messages = std::move(draft.messages);
  chat.tools = draft.tools;
  chat.template_kwargs = draft.template_kwargs;
  chat.add_generation_prompt = draft.add_generation_prompt;
  chat.continue_final_message = draft.continue_final_message;
  request.prompt = std::move(chat);
  if (draft.tool_choice == ToolChoice::automatic) {
    // A marker that is a special token would be skipped, and the call taken for content.
    request.on_model = [](const Tokenizer& tokenizer, GenerateRequest& prepared) {
      const auto* const prompt = std::get_if<ChatInput>(&prepared.prompt);
      const std::string_view given = prompt == nullptr ? std::string_view() : prompt->chat_template;
      if (detect_chat_format(tokenizer, given).markers_are_special) prepared.skip_special_tokens = false;
    };
  }
  if (draft.stream) {
    exchange->expect_stream([&service, model = draft.request.model] { return wait_comment(service, model); });
  }
  auto sink = std::make_shared<ChatReply>(service, exchange, std::move(draft));
  auto handle = service.generate(std::move(request), std::move(sink));
  exchange->on_abandoned([handle] { handle->cancel(); });
}

}  // namespace inferneo
