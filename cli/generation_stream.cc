#include "cli/generation_stream.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

namespace inferneo {

class GenerationStream::Sink final : public OutputSink {
 public:
  void on_delta(OutputDelta delta) override {
    const std::lock_guard lock(mutex_);
    deltas_.push_back(std::move(delta));
    changed_.notify_one();
  }
  void on_done(GenerateOutcome outcome) override {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
    done_ = true;
    changed_.notify_one();
  }

  std::optional<OutputDelta> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ || !deltas_.empty(); });
    if (deltas_.empty()) return std::nullopt;
    OutputDelta delta = std::move(deltas_.front());
    deltas_.pop_front();
    return delta;
  }
  bool done() {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  const GenerateOutcome& outcome() const { return outcome_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<OutputDelta> deltas_;
  GenerateOutcome outcome_;
  bool done_ = false;
};

GenerationStream::GenerationStream(InferenceService& service, GenerateRequest request)
    : sink_(std::make_shared<Sink>()), handle_(service.generate(std::move(request), sink_)) {}

GenerationStream::~GenerationStream() {
  if (!sink_->done()) cancel();
}

std::optional<OutputDelta> GenerationStream::next() { return sink_->next(); }

void GenerationStream::cancel() {
  if (handle_ != nullptr) handle_->cancel();
}

const GenerateOutcome& GenerationStream::outcome() const { return sink_->outcome(); }

}  // namespace inferneo
