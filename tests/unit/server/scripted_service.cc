#include "scripted_service.h"

#include <functional>

namespace inferneo {

Result<std::vector<Token>> ByteTokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<Token> tokens;
  if (add_special_tokens) tokens.push_back(256);
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

Result<std::string> ByteTokenizer::decode(std::span<const Token> tokens, bool skip_special_tokens) const {
  std::string text;
  for (const Token token : tokens) {
    if (token != 256) text.push_back(static_cast<char>(token));
    if (token == 256 && !skip_special_tokens) text += "[TOOL_CALLS]";
  }
  return text;
}

std::optional<Token> ByteTokenizer::token_to_id(std::string_view token) const {
  if (token == "[TOOL_CALLS]") return 256;
  return std::nullopt;
}

Result<std::vector<Token>> ByteTokenizer::apply_chat_template(const ChatInput& chat) const {
  return encode(chat.messages, false);
}

Script script_of(const std::vector<std::string>& pieces, FinishReason finish) {
  Script script;
  for (const std::string& piece : pieces) {
    OutputDelta delta;
    delta.text = piece;
    delta.tokens = {1};
    script.deltas.push_back(std::move(delta));
  }
  if (script.deltas.empty()) script.deltas.emplace_back();
  script.deltas.back().finish = finish;
  script.usage = Usage{3, 1, static_cast<int32_t>(pieces.size())};
  return script;
}

struct ScriptedService::Generation {
  Script script;
  std::shared_ptr<OutputSink> sink;
  std::shared_ptr<AdmissionTicket> ticket;
  std::atomic<bool> cancelled{false};
  bool prompt_sent = false;
  bool done = false;
  size_t next = 0;
};

class ScriptedService::Handle final : public GenerationHandle {
 public:
  Handle(ScriptedService& service, std::shared_ptr<Generation> generation)
      : service_(service), generation_(std::move(generation)) {}
  void cancel() override {
    if (generation_->cancelled.exchange(true)) return;
    const std::lock_guard lock(service_.mutex_);
    service_.hurried_.push_back(generation_);
    service_.changed_.notify_all();
  }

 private:
  ScriptedService& service_;
  std::shared_ptr<Generation> generation_;
};

ScriptedService::ScriptedService(Author author, std::string chat_template)
    : author_(std::move(author)), tokenizer_(std::make_shared<ByteTokenizer>(std::move(chat_template))) {
  thread_ = std::thread([this] { play(); });
}

ScriptedService::~ScriptedService() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

std::shared_ptr<GenerationHandle> ScriptedService::generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) {
  if (request.on_model) request.on_model(*tokenizer_, request);
  auto generation = std::make_shared<Generation>();
  generation->script = author_(request);
  generation->sink = std::move(sink);
  generation->ticket = std::move(request.ticket);
  if (generation->script.prompt.model.empty()) generation->script.prompt.model = "fake";
  ++num_active_;
  ++num_accepted_;
  const std::lock_guard lock(mutex_);
  agenda_.emplace(std::chrono::steady_clock::now() + generation->script.before_first, generation);
  last_request_ = std::move(request);
  changed_.notify_all();
  return std::make_shared<Handle>(*this, std::move(generation));
}

void ScriptedService::limit(std::vector<TenantLimits> tenants) {
  admission_ = std::make_unique<Admission>(std::move(tenants), QueueLimits{}, clock_);
}

Result<std::shared_ptr<AdmissionTicket>> ScriptedService::admit(TenantId tenant) {
  if (admission_ == nullptr) return std::shared_ptr<AdmissionTicket>();
  return admission_->admit(tenant);
}

RateLimits ScriptedService::rate_limits(TenantId tenant) const {
  return admission_ == nullptr ? RateLimits{} : admission_->rates(tenant);
}

void ScriptedService::play() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    auto work = std::exchange(work_, {});
    auto hurried = std::exchange(hurried_, {});
    const TimePoint now = std::chrono::steady_clock::now();
    std::vector<std::shared_ptr<Generation>> due = std::move(hurried);
    while (!agenda_.empty() && agenda_.begin()->first <= now) {
      due.push_back(agenda_.begin()->second);
      agenda_.erase(agenda_.begin());
    }
    if (!work.empty() || !due.empty()) {
      lock.unlock();
      for (const auto& task : work) task();
      for (const auto& generation : due) step(generation, now);
      lock.lock();
    } else if (agenda_.empty()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, agenda_.begin()->first);
    }
  }
}

void ScriptedService::step(const std::shared_ptr<Generation>& generation, TimePoint now) {
  Generation& g = *generation;
  if (g.done) return;
  if (!g.cancelled && !g.prompt_sent && !(g.script.error && g.script.deltas.empty())) {
    g.prompt_sent = true;
    g.sink->on_prompt(g.script.prompt);
  }
  if (!g.cancelled && g.next < g.script.deltas.size()) {
    g.sink->on_delta(g.script.deltas[g.next]);
    if (g.next + 1 < g.script.deltas.size() || !g.script.repeats_last) ++g.next;
    if (g.next < g.script.deltas.size() || g.script.error) {
      const std::lock_guard lock(mutex_);
      agenda_.emplace(now + g.script.between, generation);
      return;
    }
  }
  g.done = true;
  GenerateOutcome outcome;
  outcome.usage = g.script.usage;
  outcome.error = g.script.error;
  if (g.cancelled) {
    outcome.error = make_error(ErrorCode::cancelled, "cancelled");
    ++num_cancelled_;
  }
  g.ticket.reset();
  g.sink->on_done(std::move(outcome));
  g.sink = nullptr;
  ++num_done_;
  --num_active_;
}

std::vector<ServedModel> ScriptedService::models() const {
  ServedModel model;
  model.id = "fake";
  model.version = "1";
  model.root = "nowhere";
  model.created = 1700000000;
  model.max_model_len = 4096;
  model.state = "ready";
  ServedModel nested = model;
  nested.id = "org/nested-model";
  nested.max_model_len = 512;
  return {model, nested};
}

Result<ServedModel> ScriptedService::model(const std::string& name) const {
  if (name != "org/nested-model:1") return InferenceService::model(name);
  return models().back();  // not in the list under that name
}

Result<std::shared_ptr<const Tokenizer>> ScriptedService::tokenizer(const std::string& model) {
  if (model.empty() || model == "fake" || model == "org/nested-model:1") return tokenizer_;
  return make_error(ErrorCode::not_found, "no model '" + model + "'", "model");
}

bool ScriptedService::post_text_work(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  work_.push_back(std::move(work));
  changed_.notify_all();
  return true;
}

void ScriptedService::with_tokenizer(const std::string& model, TokenizerCallback callback) {
  post_text_work([this, model, callback = std::move(callback)] { callback(tokenizer(model)); });
}

Status ScriptedService::admission() const {
  if (!starting_) return ok_status();
  return make_error(ErrorCode::unavailable, "the models are being loaded");
}

Status ScriptedService::ready() const {
  RETURN_IF_ERROR(admission());
  if (ready_) return ok_status();
  return make_error(ErrorCode::unavailable, "an engine has not stepped for 10 s");
}

std::vector<MetricSample> ScriptedService::metrics() const {
  return {MetricSample{"vllm:prompt_tokens", {{"model_name", "fake"}, {"engine", "0"}}, 17.0}};
}

ServerStats ScriptedService::stats() const {
  ServerStats stats;
  stats.total_requests = 17;
  return stats;
}

GenerateRequest ScriptedService::last_request() const {
  const std::lock_guard lock(mutex_);
  return last_request_;
}

std::shared_ptr<GenerationHandle> ScriptedService::embed(EmbedRequest request, EmbedCallback done) {
  if (!on_embed) return InferenceService::embed(std::move(request), std::move(done));
  Result<EmbedAnswer> answer = on_embed(request);
  request.ticket.reset();
  done(std::move(answer));
  return nullptr;
}

std::shared_ptr<GenerationHandle> ScriptedService::infer(InferRequest request, InferCallback done) {
  if (!on_infer) return InferenceService::infer(std::move(request), std::move(done));
  Result<InferAnswer> answer = on_infer(request);
  request.ticket.reset();
  done(std::move(answer));
  return nullptr;
}

void ScriptedService::with_graph(const std::string& model, GraphCallback callback) {
  if (!on_graph) return InferenceService::with_graph(model, std::move(callback));
  callback(on_graph(model));
}

}  // namespace inferneo
