#include "cli/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

namespace inferneo {
namespace {

// All streams of a round; events come in on the service's text threads.
class Round {
 public:
  explicit Round(size_t num_streams) : streams_(num_streams), open_(num_streams) {}

  void on_tokens(size_t stream, int count) {
    const TimePoint now = clock_.now();
    const std::lock_guard lock(mutex_);
    streams_[stream].arrivals.emplace_back(now, count);
  }
  void on_done(size_t stream, GenerateOutcome outcome) {
    const std::lock_guard lock(mutex_);
    streams_[stream].stats = outcome.stats;
    if (outcome.error && !error_) error_ = std::move(outcome.error);
    if (--open_ == 0) finished_.notify_all();
  }
  Result<std::vector<BenchStream>> wait() {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return open_ == 0; });
    if (error_) return *error_;
    return std::move(streams_);
  }

 private:
  SteadyClock clock_;
  std::mutex mutex_;
  std::condition_variable finished_;
  std::vector<BenchStream> streams_;
  size_t open_;
  std::optional<Error> error_;
};

class RoundSink final : public OutputSink {
 public:
  RoundSink(std::shared_ptr<Round> round, size_t stream) : round_(std::move(round)), stream_(stream) {}
  void on_delta(OutputDelta delta) override { round_->on_tokens(stream_, static_cast<int>(delta.tokens.size())); }
  void on_done(GenerateOutcome outcome) override { round_->on_done(stream_, std::move(outcome)); }

 private:
  std::shared_ptr<Round> round_;
  size_t stream_;
};

std::vector<Token> random_prompt(const Tokenizer& tokenizer, int length, std::mt19937_64& random) {
  std::vector<Token> prompt;
  const auto vocab = static_cast<uint64_t>(tokenizer.vocab_size());
  for (int i = 0; i < length; ++i) {
    Token token = 0;
    int tries = 0;  // a vocabulary of nothing but special tokens must not hang us
    do {
      token = static_cast<Token>(random() % vocab);
    } while (tokenizer.is_special(token) && ++tries < 1000);
    prompt.push_back(token);
  }
  return prompt;
}

}  // namespace

Result<BenchRound> run_bench_round(InferenceService& service, const BenchCase& bench_case, uint64_t seed) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, service.tokenizer({}));
  std::mt19937_64 random(seed);
  const auto num_streams = static_cast<size_t>(bench_case.batch);
  const auto round = std::make_shared<Round>(num_streams);
  std::vector<GenerateRequest> requests(num_streams);
  for (size_t i = 0; i < num_streams; ++i) {
    GenerateRequest& request = requests[i];
    request.request_id = fmt::format("bench-{}", i);
    request.prompt = random_prompt(*tokenizer, bench_case.input_len, random);
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = bench_case.output_len;
    request.sampling.ignore_eos = true;
    request.explicit_sampling = {true, true, true, true, true};
    request.cache_salt = fmt::format("bench-{}-{}", seed, i);
  }
  for (size_t i = 0; i < num_streams; ++i) {
    service.generate(std::move(requests[i]), std::make_shared<RoundSink>(round, i));
  }
  ASSIGN_OR_RETURN(const std::vector<BenchStream> streams, round->wait());
  return rate_streams(streams);
}

Result<BenchRound> rate_streams(const std::vector<BenchStream>& streams) {
  TimePoint scheduled = TimePoint::max();
  TimePoint all_started = TimePoint::min();
  TimePoint first_ended = TimePoint::max();
  TimePoint all_ended = TimePoint::min();
  double prompt_tokens = 0.0;
  double output_tokens = 0.0;
  double first_token_time = 0.0;
  for (const BenchStream& stream : streams) {
    scheduled = std::min(scheduled, stream.stats.scheduled);
    all_started = std::max(all_started, stream.stats.first_token);
    first_ended = std::min(first_ended, stream.stats.finished);
    all_ended = std::max(all_ended, stream.stats.finished);
    output_tokens += stream.stats.output_tokens;
    prompt_tokens += stream.stats.prompt_tokens - stream.stats.cached_tokens;
    first_token_time += to_seconds(stream.stats.first_token - stream.stats.submitted);
  }
  double decoded = 0.0;
  if (streams.size() == 1) {
    decoded = streams.front().stats.output_tokens - 1;
  } else {
    for (const BenchStream& stream : streams) {
      for (const auto& [when, count] : stream.arrivals) {
        if (when > all_started && when <= first_ended) decoded += count;
      }
    }
  }
  if (streams.empty() || all_started <= scheduled || first_ended <= all_started || decoded <= 0.0) {
    return make_error(ErrorCode::invalid_argument,
                      "too short to time: the streams never decoded together; give a longer --output-len");
  }
  BenchRound round;
  round.prefill_rate = prompt_tokens / to_seconds(all_started - scheduled);
  round.decode_rate = decoded / to_seconds(first_ended - all_started);
  round.output_rate = output_tokens / to_seconds(all_ended - scheduled);
  round.time_to_first_token = first_token_time / static_cast<double>(streams.size());
  return round;
}

Spread spread_of(std::vector<double> values) {
  INFERNEO_CHECK(!values.empty(), "no rounds");
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
  return {median, values.front(), values.back()};
}

}  // namespace inferneo
