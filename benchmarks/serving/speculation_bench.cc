// What guessing tokens gains, and what it costs where nothing can be guessed: decode times with and without.
//   speculation_bench [MODEL [ROUNDS [TOKENS [DRAFTS]]]]     default: the bundled models, 5, 256, 8
// Outputs are traces: real ones, of the bundled models (greedy and sampled), and texts (an edit of code with the old
// code as the prediction, an answer that quotes). They are replayed: the runner computes every step, drafts included,
// and then says what the trace says, so that any MODEL (a directory; one of random weights will do) takes the time that
// it would take, with the acceptance that real text has. Random weights by themselves loop, which would flatter.
// Rounds are interleaved: without, with; with, without. Tokens per second from the first token to the last, one stream.
// Then structured answers of the bundled storyteller, which are no traces, since what a grammar allows is part of the
// cost: without guesses, with those from the text, and with a draft model's besides.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <future>
#include <map>
#include <sstream>

#include "base/system.h"
#include "engine/engine_core.h"
#include "inferneo/engine.h"
#include "models/transformers/loader.h"
#include "text/tokenizer.h"

namespace inferneo {
namespace {

template <typename T>
T require(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  fmt::print(stderr, "{}\n", result.error().message);
  std::exit(1);
}
void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "{}\n", status.error().message);
  std::exit(1);
}

struct Trace {
  std::string name;
  std::vector<Token> prompt, output, prediction;
};

// Computes as the runner in it does, and chooses the tokens of a trace.
class ReplayRunner final : public ModelRunner {
 public:
  explicit ReplayRunner(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}
  const Trace* trace = nullptr;

  const ModelSpec& spec() const override { return runner_->spec(); }
  const KvCacheSpec& kv_spec() const override { return runner_->kv_spec(); }
  Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) override {
    return runner_->bind(kv, max_num_seqs, max_num_batched_tokens);
  }
  Result<Ticket> submit(const StepBatch& batch) override {
    batch_ = batch;
    return runner_->submit(batch);
  }
  Result<StepResult> collect(Ticket ticket) override {
    ASSIGN_OR_RETURN(StepResult result, runner_->collect(ticket));
    for (size_t i = 0; i < batch_.sequences.size(); ++i) {
      const SequenceStep& step = batch_.sequences[i];
      if (step.want != Want::nothing) result.sequences[i].tokens = tokens_after(step);
    }
    return result;
  }

 private:
  std::vector<Token> tokens_after(const SequenceStep& step) const {
    const size_t num_draft = step.want == Want::verify ? static_cast<size_t>(step.num_draft) : 0;
    const std::span<const Token> drafts = step.tokens.last(num_draft);
    size_t index = static_cast<size_t>(step.position) + step.tokens.size() - num_draft - trace->prompt.size();
    std::vector<Token> tokens;
    for (size_t d = 0; d <= num_draft; ++d, ++index) {
      tokens.push_back(trace->output[std::min(index, trace->output.size() - 1)]);
      if (d == num_draft || drafts[d] != tokens.back()) break;
    }
    return tokens;
  }

  std::unique_ptr<ModelRunner> runner_;
  StepBatch batch_;
};

class DoneSink final : public TokenSink {
 public:
  void on_token(int32_t, Token, const TokenLogprobs*, bool) override {}
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { done.set_value(outcome); }
  std::promise<RequestOutcome> done;
};

struct Engine {
  ReplayRunner* runner = nullptr;  // the core's
  std::unique_ptr<EngineCore> core;
};

struct Place {
  SteadyClock clock;
  MemoryLedger ledger{size_t{16} << 30};
  ThreadPool pool{available_cpus()};
  WeightStore store{WeightStore::Options{}};
};

Engine open_engine(Place& place, const std::string& path, int32_t num_drafts) {
  static std::map<std::string, ModelDirectory> directories;  // the loader keeps a pointer while it loads
  auto found = directories.find(path);
  if (found == directories.end()) {
    found = directories.emplace(path, require(ModelDirectory::open(path, path, {path}))).first;
  }
  LoadOptions options;
  options.directory = &found->second;
  options.model_name = fmt::format("{} with {}", path, num_drafts);
  options.ledger = &place.ledger;
  options.pool = &place.pool;
  options.store = &place.store;
  auto runner = std::make_unique<ReplayRunner>(require(load_transformers_model(options)));
  Engine engine{runner.get(), nullptr};
  EngineCoreConfig config;
  config.model = options.model_name;
  config.num_speculative_tokens = num_drafts;
  config.max_num_seqs = 16;
  config.enable_prefix_caching = false;
  config.max_kv_bytes = size_t{1} << 30;
  engine.core = require(EngineCore::create(config, std::move(runner), place.ledger, place.clock));
  return engine;
}

struct Run {
  double rate = 0.0;  // tokens per second after the first
  RequestStats stats;
};

Run run(Engine& engine, const Trace& trace) {
  static RequestId next_id = 1;
  auto sink = std::make_shared<DoneSink>();
  engine.runner->trace = &trace;  // nothing is in flight
  Request request;
  request.id = next_id++;
  request.prompt = trace.prompt;
  request.prediction = trace.prediction;
  request.sampling.temperature = 0.0F;
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = static_cast<int>(trace.output.size());
  request.sink = sink;
  auto done = sink->done.get_future();
  require(engine.core->submit(std::move(request)));
  Run result;
  result.stats = done.get().stats;
  result.rate = (result.stats.output_tokens - 1) / to_seconds(result.stats.finished - result.stats.first_token);
  return result;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& folder) {
  TokenizerFiles files;
  files.tokenizer_json = read_file(folder + "/tokenizer.json");
  return require(load_tokenizer(files));
}

// What a bundled model says.
Trace recorded(const std::string& name, const std::string& model, const std::string& prompt, float temperature,
               int num_tokens) {
  EngineConfig config;
  config.model = {std::string(INFERNEO_SOURCE_DIR "/models/") + model};
  config.registry = "memory";
  config.quiet = true;
  config.log_level = "error";
  config.packed_cache_gb = 0.0;
  config.max_memory_gb = 1.0;
  InferneoEngine engine(config);
  require(engine.start());
  SamplingParams sampling;
  sampling.temperature = temperature;
  sampling.seed = 5;
  sampling.max_tokens = num_tokens;
  sampling.ignore_eos = true;
  const auto tokenizer = tokenizer_of(config.model[0]);
  Trace trace{name, require(tokenizer->encode(prompt, false)), {}, {}};
  trace.output = require(engine.generate(prompt, sampling).get()).samples.at(0).tokens;
  return trace;
}

std::string functions(const std::string& prefix) {
  std::string code;
  for (const char* name : {"add", "sub", "mul", "power", "larger", "smaller", "mean", "scale"}) {
    code += fmt::format(
        "def {0}{1}(first, second):\n    \"\"\"Return the {1} of two numbers.\"\"\"\n    result = "
        "compute_{1}(first, second)\n    log(\"{1}\", first, second, result)\n    return result\n\n\n",
        prefix, name);
  }
  return code;
}

std::vector<Trace> traces(size_t num_tokens) {
  const std::string code_folder = INFERNEO_SOURCE_DIR "/models/inferneo-code";
  const std::string story_folder = INFERNEO_SOURCE_DIR "/models/inferneo-story";
  const auto code = tokenizer_of(code_folder);
  const auto story = tokenizer_of(story_folder);
  const auto count = static_cast<int>(num_tokens);
  std::vector<Trace> all;
  all.push_back(recorded("repetitive (code, greedy)", "inferneo-code", "def add(a, b):\n", 0.0F, count));

  const std::string before = functions("");
  Trace edit{"code edit with prediction", require(code->encode("Rename all functions.\n", false)),
             require(code->encode(functions("safe_"), false)), require(code->encode(before, false))};
  all.push_back(std::move(edit));

  const std::string tale =
      "Lily found a red boat near the old river. She asked Ben to help her with the sail. Ben was kind and brought a "
      "rope. The wind was strong, so they waited under the big tree until the sun came back. ";
  const std::string answer =
      "The text says: \"She asked Ben to help her with the sail.\" It goes on: \"The wind was "
      "strong, so they waited under the big tree until the sun came back.\" First of all: "
      "\"Lily found a red boat near the old river.\" And then: \"Ben was kind and brought a rope.\"";
  all.push_back({"quoting", require(story->encode(tale, false)), require(story->encode(answer, false)), {}});

  all.push_back(recorded("unhelpful (story, temperature 1)", "inferneo-story", "Once upon a time", 1.0F, count));
  for (Trace& trace : all) trace.output.resize(std::min(trace.output.size(), num_tokens));
  return all;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(const std::string& model, const std::vector<Trace>& all, int rounds, int32_t num_drafts) {
  Place place;
  Engine without = open_engine(place, model, 0);
  Engine with = open_engine(place, model, num_drafts);
  fmt::print("{}\n  {:<34} {:>9} {:>9}  {:<24} {:>9}\n", model, "text", "plain", "guessing", "ratio (each round)",
             "accepted");
  for (const Trace& trace : all) {
    run(without, trace);  // warm
    run(with, trace);
    std::vector<double> plain, guessing, ratios;
    RequestStats stats;
    for (int round = 0; round < rounds; ++round) {
      double first = 0.0, second = 0.0;
      for (const bool guesses : {round % 2 == 1, round % 2 == 0}) {
        const Run one = run(guesses ? with : without, trace);
        (guesses ? second : first) = one.rate;
        if (guesses) stats = one.stats;
      }
      plain.push_back(first);
      guessing.push_back(second);
      ratios.push_back(second / first);
    }
    const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
    fmt::print("  {:<34} {:>9.1f} {:>9.1f}  {:<24} {:>4}/{:<4}\n", trace.name, median(plain), median(guessing),
               fmt::format("{:.2f} ({:.2f} to {:.2f})", median(ratios), *low, *high), stats.accepted_tokens,
               stats.draft_tokens);
  }
}

struct Structured {
  const char* name;
  GrammarSpec grammar;
  std::string prompt;
};

std::vector<Structured> structured() {
  const std::string record =
      R"({"type": "object", "additionalProperties": false, "required": ["name", "age", "animal", "is_friendly"],
          "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99},
                         "animal": {"enum": ["fox", "dog", "cat"]}, "is_friendly": {"type": "boolean"}}})";
  const std::string records =
      fmt::format(R"({{"type": "array", "minItems": 12, "maxItems": 12, "items": {}}})", record);
  const std::string text = R"({"type": "object", "additionalProperties": false, "required": ["title", "story"],
      "properties": {"title": {"type": "string", "maxLength": 40}, "story": {"type": "string", "minLength": 600,
                     "maxLength": 700}}})";
  const std::string long_keys = R"({"type": "object", "additionalProperties": false,
      "required": ["name_of_the_animal", "age_of_the_animal_in_years", "kind_of_animal", "is_friendly_to_people"],
      "properties": {"name_of_the_animal": {"type": "string", "maxLength": 12},
                     "age_of_the_animal_in_years": {"type": "integer", "maximum": 99},
                     "kind_of_animal": {"enum": ["little fox", "little dog", "cat"]},
                     "is_friendly_to_people": {"type": "boolean"}}})";
  return {{"twelve records (schema)", {GrammarSpec::Kind::json_schema, records, {}}, "Tim, Sue and Tom have animals. "},
          {"one record (schema)", {GrammarSpec::Kind::json_schema, record, {}}, "Tim has a fox. "},
          {"one record, long keys (schema)", {GrammarSpec::Kind::json_schema, long_keys, {}}, "Tim has a fox. "},
          {"free text in JSON (schema)", {GrammarSpec::Kind::json_schema, text, {}}, "Once upon a time "},
          {"a list (regex)",
           {GrammarSpec::Kind::regex, "(- (Tim|Sue|Tom) went to the (park|river|big tree)\\.\n){16}", {}},
           "Where did they go? "}};
}

// Over several seeds, together; the same tokens whoever guesses.
Run run_structured(InferneoEngine& engine, const Structured& asked, std::vector<std::vector<Token>>& tokens) {
  Run total;
  double seconds = 0.0;
  tokens.clear();
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SamplingParams sampling;
    sampling.temperature = seed % 2 == 0 ? 0.0F : 0.8F;
    sampling.seed = seed;
    sampling.grammar = asked.grammar;
    sampling.max_tokens = 500;
    const SteadyClock clock;
    const TimePoint began = clock.now();
    GenerationResult result = require(engine.generate(asked.prompt, sampling).get());
    seconds += to_seconds(clock.now() - began);
    total.stats.output_tokens += static_cast<int32_t>(result.samples.at(0).tokens.size());
    total.stats.draft_tokens += result.draft_tokens;
    total.stats.accepted_tokens += result.accepted_tokens;
    tokens.push_back(std::move(result.samples.at(0).tokens));
  }
  total.rate = total.stats.output_tokens / seconds;
  return total;
}

void measure_structured(int rounds, int32_t num_drafts) {
  const std::string models = INFERNEO_SOURCE_DIR "/models/";
  std::vector<std::unique_ptr<InferneoEngine>> engines;
  for (const int kind : {0, 1, 2}) {
    EngineConfig config;
    config.model = {models + "inferneo-story"};
    config.registry = "memory";
    config.quiet = true;
    config.log_level = "error";
    config.packed_cache_gb = 0.0;
    config.max_memory_gb = 1.0;
    config.deterministic = true;
    config.enable_speculative_decoding = kind > 0;
    config.num_speculative_tokens = num_drafts;
    if (kind == 2) config.draft_model = models + "inferneo-story-draft";
    engines.push_back(std::make_unique<InferneoEngine>(config));
    require(engines.back()->start());
  }
  fmt::print("\nunder a grammar\n  {:<30} {:>8} {:>9}  {:<24} {:>10}  {:<24} {:>10}\n", "answer", "tokens", "plain",
             "text, ratio", "accepted", "and draft, ratio", "accepted");
  for (const Structured& asked : structured()) {
    std::vector<double> plain;
    std::vector<std::vector<double>> ratios(3);
    std::vector<Run> last(3);
    for (int round = -1; round < rounds; ++round) {  // the first warms up
      std::vector<std::vector<Token>> expected, tokens;
      for (int i = 0; i < 3; ++i) {
        const auto kind = static_cast<size_t>(round % 2 == 0 ? i : 2 - i);
        last[kind] = run_structured(*engines[kind], asked, tokens);
        if (expected.empty()) expected = tokens;
        if (tokens != expected) fmt::print("  {}: the tokens differ\n", asked.name);
      }
      if (round < 0) continue;
      plain.push_back(last[0].rate);
      for (size_t kind = 1; kind < 3; ++kind) ratios[kind].push_back(last[kind].rate / last[0].rate);
    }
    const auto column = [&](size_t kind) {
      const auto [low, high] = std::minmax_element(ratios[kind].begin(), ratios[kind].end());
      return fmt::format("{:<24} {:>4}/{:<5}",
                         fmt::format("{:.2f} ({:.2f} to {:.2f})", median(ratios[kind]), *low, *high),
                         last[kind].stats.accepted_tokens, last[kind].stats.draft_tokens);
    };
    fmt::print("  {:<30} {:>8} {:>9.1f}  {}  {}\n", asked.name, last[0].stats.output_tokens, median(plain), column(1),
               column(2));
  }
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  using namespace inferneo;
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  const size_t num_tokens = argc > 3 ? static_cast<size_t>(std::max(32, std::atoi(argv[3]))) : 256;
  const int32_t num_drafts = argc > 4 ? std::clamp(std::atoi(argv[4]), 1, 15) : 8;
  const std::vector<Trace> all = traces(num_tokens);
  measure(argc > 1 ? argv[1] : INFERNEO_SOURCE_DIR "/models/inferneo-story", all, rounds, num_drafts);
  measure_structured(rounds, num_drafts);
}
