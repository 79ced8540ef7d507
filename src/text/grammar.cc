#include "text/grammar.h"

#include <vector>

#include "text/rust_call.h"
#include "text/rust_grammar.h"

namespace inferneo {
namespace {

using rust_text::Collector;

struct MatcherDelete {
  void operator()(rust_text::MatcherHandle* handle) const { rust_text::inferneo_text_matcher_free(handle); }
};
struct GrammarDelete {
  void operator()(rust_text::GrammarHandle* handle) const { rust_text::inferneo_text_grammar_free(handle); }
};

class RustMatcher final : public GrammarMatcher {
 public:
  explicit RustMatcher(rust_text::MatcherHandle* handle) : handle_(handle) {}

  Status fill_mask(std::span<uint32_t> mask) override {
    Collector out;
    return out.status(
        rust_text::inferneo_text_matcher_fill_mask(handle_.get(), mask.data(), mask.size(), out.output()));
  }

  Status accept(Token token) override {
    if (token < 0) return make_error(ErrorCode::invalid_argument, "a negative token is not allowed by the grammar");
    Collector out;
    return out.status(
        rust_text::inferneo_text_matcher_accept(handle_.get(), static_cast<uint32_t>(token), out.output()));
  }

  Status rollback(int num_tokens) override {
    if (num_tokens < 0) return make_error(ErrorCode::invalid_argument, "a rollback cannot be negative");
    Collector out;
    return out.status(
        rust_text::inferneo_text_matcher_rollback(handle_.get(), static_cast<size_t>(num_tokens), out.output()));
  }

  Result<Foresight> foresee(int32_t max_tokens) override {
    Collector out;
    Foresight foresight;
    if (max_tokens < 1) return foresight;
    RETURN_IF_ERROR(out.status(
        rust_text::inferneo_text_matcher_foresee(handle_.get(), static_cast<size_t>(max_tokens), out.output())));
    for (const Token number : out.take_tokens()) {  // the token in the low 28 bits
      foresight.tokens.push_back(number & ((1 << 28) - 1));
      foresight.certainty.push_back(static_cast<Certainty>(number >> 28));
    }
    return foresight;
  }

  bool is_finished() const override { return rust_text::inferneo_text_matcher_is_finished(handle_.get()); }

 private:
  std::unique_ptr<rust_text::MatcherHandle, MatcherDelete> handle_;
};

class RustGrammar final : public GrammarCompiled {
 public:
  explicit RustGrammar(rust_text::GrammarHandle* handle) : handle_(handle) {}

  Result<std::unique_ptr<GrammarMatcher>> new_matcher() const override {
    Collector out;
    rust_text::MatcherHandle* matcher = nullptr;
    RETURN_IF_ERROR(out.status(rust_text::inferneo_text_matcher_new(handle_.get(), &matcher, out.output())));
    return std::unique_ptr<GrammarMatcher>(std::make_unique<RustMatcher>(matcher));
  }

 private:
  std::unique_ptr<rust_text::GrammarHandle, GrammarDelete> handle_;
};

// The numbers of GrammarSpec::Kind on the Rust side.
int32_t kind_number(GrammarSpec::Kind kind) {
  switch (kind) {
    case GrammarSpec::Kind::none:
      return 0;
    case GrammarSpec::Kind::json_object:
      return 1;
    case GrammarSpec::Kind::json_schema:
      return 2;
    case GrammarSpec::Kind::regex:
      return 3;
    case GrammarSpec::Kind::choice:
      return 4;
    case GrammarSpec::Kind::lark:
      return 5;
  }
  return 0;
}

}  // namespace

Result<std::shared_ptr<const GrammarCompiled>> compile_rust_grammar(const rust_text::TextHandle* text,
                                                                    const GrammarSpec& grammar, int32_t logits_width,
                                                                    std::span<const Token> eos) {
  if (logits_width <= 0) return make_error(ErrorCode::invalid_argument, "a logits row has no width");
  std::vector<rust_text::Slice> choices;
  for (const std::string& choice : grammar.choices) choices.push_back(rust_text::slice_of(choice));
  Collector out;
  rust_text::GrammarHandle* compiled = nullptr;
  RETURN_IF_ERROR(out.status(rust_text::inferneo_text_compile_grammar(
      text, kind_number(grammar.kind), rust_text::slice_of(grammar.text), choices.data(), choices.size(),
      static_cast<size_t>(logits_width), rust_text::slice_of(eos), &compiled, out.output())));
  return std::shared_ptr<const GrammarCompiled>(std::make_shared<RustGrammar>(compiled));
}

}  // namespace inferneo
