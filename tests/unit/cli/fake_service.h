// A service that answers from a script on a thread of its own, and pipes that stand in for a terminal.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cli/terminal.h"
#include "serving/inference_service.h"

namespace inferneo {

// Bytes are token ids; id 0 is special.
class FakeTokenizer final : public Tokenizer {
 public:
  Result<std::vector<Token>> encode(std::string_view text, bool) const override {
    return std::vector<Token>(text.begin(), text.end());
  }
  Result<std::vector<Token>> encode_with_control(std::string_view text, bool special) const override {
    return encode(text, special);
  }
  Result<std::string> decode(std::span<const Token> tokens, bool) const override {
    return std::string(tokens.begin(), tokens.end());
  }
  std::unique_ptr<StreamDecoder> new_stream(bool) const override { return nullptr; }
  int32_t vocab_size() const override { return 100; }
  std::optional<Token> token_to_id(std::string_view) const override { return std::nullopt; }
  std::string token_bytes(Token token) const override { return std::string(1, static_cast<char>(token)); }
  bool is_special(Token token) const override { return token == 0; }
  bool has_chat_template() const override { return true; }
  std::string chat_template_source() const override { return {}; }
  Result<std::vector<Token>> apply_chat_template(const ChatInput& chat) const override {
    return encode(chat.messages, false);
  }
  Result<std::string> render_chat_template(const ChatInput& chat) const override { return chat.messages; }
  Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec&, int32_t,
                                                                 std::span<const Token>) const override {
    return make_error(ErrorCode::unsupported, "no grammars here");
  }
};

struct FakeReply {
  std::vector<std::string> pieces = {};
  std::optional<Error> error = {};
  bool endless = false;  // repeats the last piece until it is cancelled
};

class FakeService final : public InferenceService {
 public:
  ~FakeService() override {
    for (std::thread& thread : threads_) thread.join();
  }

  // Without a script: one token "x" after the other up to max_tokens.
  std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) override {
    auto handle = std::make_shared<Handle>();
    FakeReply reply;
    if (!replies.empty()) {
      reply = replies.front();
      replies.pop_front();
    } else {
      reply.pieces.assign(static_cast<size_t>(request.sampling.max_tokens.value_or(1)), "x");
    }
    requests.push_back(std::move(request));
    threads_.emplace_back([reply, sink, handle, this] { play(reply, *sink, *handle); });
    return handle;
  }
  std::vector<ServedModel> models() const override {
    ServedModel info;
    info.id = "fake";
    info.max_model_len = 64;
    return {info};
  }
  Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string&) override {
    return std::shared_ptr<const Tokenizer>(std::make_shared<FakeTokenizer>());
  }
  bool post_text_work(std::function<void()> work) override {
    work();
    return true;
  }
  void with_tokenizer(const std::string& model, TokenizerCallback callback) override { callback(tokenizer(model)); }
  Status ready() const override { return ok_status(); }
  std::vector<MetricSample> metrics() const override { return {}; }

  // Of the test's thread, which is the only one to call generate().
  std::deque<FakeReply> replies;
  std::vector<GenerateRequest> requests;
  std::function<void()> on_first_delta;  // called on the answering thread; set before

 private:
  struct Handle final : GenerationHandle {
    void cancel() override { cancelled = true; }
    std::atomic<bool> cancelled{false};
  };

  void play(const FakeReply& reply, OutputSink& sink, const Handle& handle) {
    const SteadyClock clock;
    GenerateOutcome outcome;
    outcome.stats.submitted = outcome.stats.scheduled = clock.now();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the streams of a batch begin while this one waits
    int count = 0;
    for (size_t i = 0; !handle.cancelled && (i < reply.pieces.size() || reply.endless); ++i) {
      OutputDelta delta;
      delta.text = reply.pieces[std::min(i, reply.pieces.size() - 1)];
      delta.tokens = {1};
      if (count++ == 0) outcome.stats.first_token = clock.now();
      sink.on_delta(std::move(delta));
      if (count == 1 && on_first_delta) on_first_delta();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    outcome.stats.finished = clock.now();
    outcome.stats.prompt_tokens = outcome.usage.prompt_tokens = 7;
    outcome.stats.output_tokens = outcome.usage.completion_tokens = count;
    outcome.error = reply.error;
    if (handle.cancelled) outcome.error = make_error(ErrorCode::cancelled, "cancelled");
    sink.on_done(std::move(outcome));
  }

  std::vector<std::thread> threads_;
};

class Pipe {
 public:
  Pipe() {
    if (::pipe2(fds_, O_CLOEXEC) != 0) std::abort();
  }
  ~Pipe() {
    close_write();
    close_read();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int read_end() const { return fds_[0]; }
  int write_end() const { return fds_[1]; }
  void close_write() { close_end(fds_[1]); }
  void close_read() { close_end(fds_[0]); }
  void put(std::string_view text) {
    if (::write(fds_[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  }
  std::string take_all() {  // closes the write end
    close_write();
    std::string text;
    char chunk[4096];
    for (ssize_t count = 0; (count = ::read(fds_[0], chunk, sizeof(chunk))) > 0;) {
      text.append(chunk, static_cast<size_t>(count));
    }
    return text;
  }

 private:
  static void close_end(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  int fds_[2] = {-1, -1};
};

}  // namespace inferneo
