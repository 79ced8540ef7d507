// An InferenceService that plays a script: what each request answers, how fast, how it fails. One thread plays all.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "serving/inference_service.h"

namespace inferneo {

// A token is a byte; decoding joins them. The template is a string that parsers are picked by.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(std::string chat_template) : chat_template_(std::move(chat_template)) {}

  Result<std::vector<Token>> encode(std::string_view text, bool add_special_tokens) const override;
  Result<std::vector<Token>> encode_with_control(std::string_view text, bool add) const override {
    return encode(text, add);
  }
  Result<std::string> decode(std::span<const Token> tokens, bool skip_special_tokens) const override;
  std::unique_ptr<StreamDecoder> new_stream(bool) const override { return nullptr; }
  int32_t vocab_size() const override { return 257; }
  std::optional<Token> token_to_id(std::string_view token) const override;
  std::string token_bytes(Token token) const override { return token == 256 ? "" : std::string(1, char(token)); }
  bool is_special(Token token) const override { return token == 256; }
  bool has_chat_template() const override { return true; }
  std::string chat_template_source() const override { return chat_template_; }
  Result<std::vector<Token>> apply_chat_template(const ChatInput& chat) const override;
  Result<std::string> render_chat_template(const ChatInput& chat) const override { return chat.messages; }
  Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec&, int32_t,
                                                                 std::span<const Token>) const override {
    return make_error(ErrorCode::unsupported, "no grammars here");
  }

 private:
  std::string chat_template_;
};

struct Script {
  PromptInfo prompt;
  std::vector<OutputDelta> deltas;
  std::optional<Error> error;  // instead of an end
  Usage usage;
  Duration before_first{0};
  Duration between{0};
  bool repeats_last = false;  // the last delta comes again until the request is cancelled
};

// One sample whose text comes in these pieces.
Script script_of(const std::vector<std::string>& pieces, FinishReason finish = FinishReason::stop);

class ScriptedService final : public InferenceService {
 public:
  using Author = std::function<Script(const GenerateRequest&)>;

  explicit ScriptedService(Author author, std::string chat_template = "");
  ~ScriptedService() override;

  std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) override;
  std::vector<ServedModel> models() const override;
  Result<ServedModel> model(const std::string& name) const override;
  Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string& model) override;
  bool post_text_work(std::function<void()> work) override;
  void with_tokenizer(const std::string& model, TokenizerCallback callback) override;
  Status admission() const override;
  Status ready() const override;
  std::vector<MetricSample> metrics() const override;
  ServerStats stats() const override;

  Result<std::shared_ptr<AdmissionTicket>> admit(TenantId tenant) override;
  RateLimits rate_limits(TenantId tenant) const override;

  std::shared_ptr<GenerationHandle> embed(EmbedRequest request, EmbedCallback done) override;
  std::shared_ptr<GenerationHandle> infer(InferRequest request, InferCallback done) override;
  void with_graph(const std::string& model, GraphCallback callback) override;

  // For the tests.
  // What is answered to these, at once; set before the first request. Without one it is unsupported.
  std::function<Result<EmbedAnswer>(const EmbedRequest&)> on_embed;
  std::function<Result<InferAnswer>(const InferRequest&)> on_infer;
  std::function<Result<GraphDescription>(const std::string&)> on_graph;
  void limit(std::vector<TenantLimits> tenants);  // before the first request; else nobody is limited
  GenerateRequest last_request() const;
  int num_active() const { return num_active_.load(); }
  int num_accepted() const { return num_accepted_.load(); }
  int num_done() const { return num_done_.load(); }
  int num_cancelled() const { return num_cancelled_.load(); }
  void set_ready(bool ready) { ready_ = ready; }
  void set_starting(bool starting) { starting_ = starting; }

 private:
  struct Generation;
  class Handle;
  void play();
  void step(const std::shared_ptr<Generation>& generation, TimePoint now);

  Author author_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SteadyClock clock_;
  std::unique_ptr<Admission> admission_;
  std::atomic<bool> ready_{true};
  std::atomic<bool> starting_{false};
  std::atomic<int> num_active_{0};
  std::atomic<int> num_accepted_{0};
  std::atomic<int> num_done_{0};
  std::atomic<int> num_cancelled_{0};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<TimePoint, std::shared_ptr<Generation>> agenda_;
  std::vector<std::function<void()>> work_;
  std::vector<std::shared_ptr<Generation>> hurried_;  // cancelled: their end is due now
  GenerateRequest last_request_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace inferneo
