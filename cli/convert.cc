// inferneo convert MODEL OUTPUT: a model in Hugging Face layout as an ONNX model.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>

#include "base/config/suggest.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/units.h"
#include "inferneo/onnx_converter.h"

namespace inferneo {
namespace {

constexpr std::array kConvertOptions = {
    CommandOption{"--precision", "TYPE", "Of weights: f32, f16, int8 or int4 (int4)"},
    CommandOption{"--block-size", "N", "Weights that share a scale: 16, 32, 64 or 128 (by kind)"},
    CommandOption{"--activations", "TYPE", "With int8 and int4: f32 or f16, also of the cache (f32)"},
    CommandOption{"--accuracy-level", "N", "Of integer products: 1 in f32, 4 in int8 (4)"},
    CommandOption{"--opset", "NAME", "genai, or standard-21 and standard-23 for other runtimes"},
    CommandOption{"--max-model-len", "N", "Longest sequence that it serves (the model's)"},
    CommandOption{"--overwrite", "", "Replace an earlier conversion"},
    CommandOption{"--no-verify", "", "Do not compare it with the native model"},
};

template <typename T>
struct Choice {
  std::string_view name;
  T value;
};
constexpr std::array kPrecisions = {
    Choice<Precision>{"f32", Precision::Float32}, Choice<Precision>{"f16", Precision::Float16},
    Choice<Precision>{"int8", Precision::Int8}, Choice<Precision>{"int4", Precision::Int4}};
constexpr std::array kOpsets = {Choice<OnnxOperators>{"genai", OnnxOperators::GenAI},
                                Choice<OnnxOperators>{"standard", OnnxOperators::Standard21},
                                Choice<OnnxOperators>{"standard-21", OnnxOperators::Standard21},
                                Choice<OnnxOperators>{"standard-23", OnnxOperators::Standard23}};
constexpr std::array kActivations = {Choice<bool>{"f32", false}, Choice<bool>{"f16", true}};

template <typename T, size_t N>
Status choose(const Invocation& invocation, std::string_view flag, const std::array<Choice<T>, N>& choices, T& out) {
  const auto given = invocation.last(flag);
  if (!given) return ok_status();
  std::vector<std::string_view> names;
  std::string listed;
  for (const Choice<T>& choice : choices) {
    if (choice.name == *given) {
      out = choice.value;
      return ok_status();
    }
    names.push_back(choice.name);
    listed += (listed.empty() ? "" : ", ") + std::string(choice.name);
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("convert: {} '{}' is not one of {}{}", flag, given->substr(0, 60), listed,
                                did_you_mean(*given, names)));
}

Status read_integer(const Invocation& invocation, std::string_view flag, int& out) {
  const auto given = invocation.last(flag);
  if (!given) return ok_status();
  const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), out);
  if (error == std::errc() && end == given->data() + given->size() && out >= 0) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("convert: {} '{}' is no whole number", flag, given->substr(0, 60)));
}

Result<ConvertOptions> read_options(const Invocation& invocation) {
  ConvertOptions options;
  RETURN_IF_ERROR(choose(invocation, "--precision", kPrecisions, options.precision));
  RETURN_IF_ERROR(choose(invocation, "--opset", kOpsets, options.operators));
  RETURN_IF_ERROR(choose(invocation, "--activations", kActivations, options.half_activations));
  RETURN_IF_ERROR(read_integer(invocation, "--block-size", options.block_size));
  RETURN_IF_ERROR(read_integer(invocation, "--accuracy-level", options.accuracy_level));
  RETURN_IF_ERROR(read_integer(invocation, "--max-model-len", options.max_model_len));
  options.overwrite = invocation.has("--overwrite");
  options.verify = !invocation.has("--no-verify");
  return options;
}

std::string closing_text(const ConvertedModel& done, bool wanted_verification) {
  std::string text = fmt::format("{} ({} from {}, in {})\n", done.path, size_text(done.graph_bytes + done.data_bytes),
                                 size_text(done.source_bytes), duration_text(done.seconds));
  const ConvertVerification& check = done.verification;
  if (check.done) {
    text += fmt::format(
        "verified: logits typically differ by {:.3g} of their spread (bound {:.3g}), at most by {:.3g}; {} of {} "
        "greedy "
        "tokens agree\n",
        check.typical_difference, check.bound, check.largest_difference, check.agreeing, check.tokens);
  } else if (wanted_verification) {
    text += fmt::format("not verified: {}\n", check.reason);
  }
  return text;
}

Result<int> convert(const Invocation& invocation, CommandContext& context) {
  if (invocation.positionals.size() != 2) {
    return make_error(ErrorCode::invalid_argument,
                      "convert: name a model and the directory to be written: inferneo convert MODEL OUTPUT");
  }
  ASSIGN_OR_RETURN(const LoadedConfig loaded, load_invocation_config(*find_command("convert"), invocation, context));
  ASSIGN_OR_RETURN(ConvertOptions options, read_options(invocation));
  const SteadyClock clock;
  ProgressLine line(context.terminal, clock, loaded.config.quiet);
  std::atomic<int> signal = 0;
  const Signals::Scope until_done(context.signals, [&](int number, int count) {
    if (count > 1) ::_exit(128 + number);
    signal = number;
  });
  const std::string& model = invocation.positionals[0];
  options.on_progress = [&](const ConvertProgress& progress) -> Status {
    if (signal != 0) return make_error(ErrorCode::cancelled, "stopped; nothing was kept");
    line.update({model, progress.stage, progress.bytes_done, progress.bytes_total});
    return ok_status();
  };
  ONNXConverter converter(loaded.config);
  const Result<ConvertedModel> done = converter.convert_model(model, invocation.positionals[1], options);
  line.clear();
  if (!done.ok()) {
    if (done.error().code != ErrorCode::cancelled || signal == 0) return done.error();
    context.terminal.note(fmt::format("inferneo: {}\n", done.error().message));
    return 128 + signal;
  }
  context.terminal.write(closing_text(*done, options.verify));
  return kExitDone;
}

}  // namespace

std::span<const CommandOption> convert_options() { return kConvertOptions; }

int run_convert(const Invocation& invocation, CommandContext& context) {
  const auto code = convert(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
