#include <algorithm>
#include <array>

#include "data.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

using P = SamplingParams;
using Kind = GrammarSpec::Kind;
using Filler = std::function<void(P&, const nb::kwargs&)>;

const Filler* g_fill = nullptr;

// A constraint is one attribute for each kind; the one that is assigned last holds, and one call may give one.
void add_constraint(Fields<P>& fields, const char* name, Kind kind, const char* doc) {
  fields.property(
      name, "str | None", doc,
      [kind](const P& self) { return self.grammar.kind == kind ? nb::cast(self.grammar.text) : nb::none(); },
      [kind, name](P& self, nb::handle value) {
        std::optional<std::string> text;
        if (!nb::try_cast(value, text)) raise_wrong_type(std::string("SamplingParams.") + name, "str | None", value);
        if (text) {
          self.grammar = {.kind = kind, .text = *text, .choices = {}};
        } else if (self.grammar.kind == kind) {
          self.grammar = {};
        }
      });
}

constexpr std::array kRows = {std::pair{"none", PromptRows::none}, std::pair{"logits", PromptRows::logits},
                              std::pair{"hidden", PromptRows::hidden}};

void add_prompt_rows(Fields<P>& fields) {
  constexpr const char* kType = "Literal['none', 'logits', 'hidden']";
  fields.property(
      "prompt_rows", kType, "Rows of numbers about the prompt's tokens; else than 'none': nothing is generated.",
      [](const P& self) { return nb::cast(kRows[static_cast<size_t>(self.prompt_rows)].first); },
      [kType](P& self, nb::handle value) {
        std::string word;
        if (nb::try_cast(value, word)) {
          for (const auto& [name, rows] : kRows) {
            if (word == name) {
              self.prompt_rows = rows;
              return;
            }
          }
        }
        raise_wrong_type("SamplingParams.prompt_rows", kType, value);
      });
}

void add_constraints(Fields<P>& fields) {
  add_constraint(fields, "json_schema", Kind::json_schema, "The text is JSON of this schema (JSON text).");
  add_constraint(fields, "regex", Kind::regex, "The text matches this regular expression.");
  add_constraint(fields, "grammar", Kind::lark, "The text follows this Lark grammar.");
  fields.property(
      "json_object", "bool", "The text is a JSON object.",
      [](const P& self) { return nb::cast(self.grammar.kind == Kind::json_object); },
      [](P& self, nb::handle value) {
        bool wanted = false;
        if (!nb::try_cast(value, wanted)) raise_wrong_type("SamplingParams.json_object", "bool", value);
        if (wanted) {
          self.grammar = {.kind = Kind::json_object, .text = {}, .choices = {}};
        } else if (self.grammar.kind == Kind::json_object) {
          self.grammar = {};
        }
      });
  fields.property(
      "choices", "list[str]", "The text is one of these.", [](const P& self) { return nb::cast(self.grammar.choices); },
      [](P& self, nb::handle value) {
        std::vector<std::string> choices;
        if (!nb::try_cast(value, choices)) raise_wrong_type("SamplingParams.choices", "list[str]", value);
        if (!choices.empty()) {
          self.grammar = {.kind = Kind::choice, .text = {}, .choices = std::move(choices)};
        } else if (self.grammar.kind == Kind::choice) {
          self.grammar = {};
        }
      });
}

// A str is one text, as in the OpenAI API.
void add_stop(Fields<P>& fields) {
  fields.property(
      "stop", "list[str]", "Texts that end the output and are not part of it; at most 16. A str is taken as one.",
      [](const P& self) { return nb::cast(self.stop); },
      [](P& self, nb::handle value) {
        std::string one;
        if (PyUnicode_Check(value.ptr()) && nb::try_cast(value, one)) {
          self.stop = {std::move(one)};
        } else {
          self.stop = from_python<std::vector<std::string>>(value, "SamplingParams.stop");
        }
      });
}

}  // namespace

void bind_sampling(nb::module_& module) {
  Fields<P> fields(module, "SamplingParams", "How tokens are chosen.");
  fields.field("temperature", &P::temperature, "0 is greedy.")
      .field("top_k", &P::top_k, "0 or -1: off.")
      .field("top_p", &P::top_p, "(0, 1].")
      .field("min_p", &P::min_p, "[0, 1].")
      .field("typical_p", &P::typical_p, "(0, 1].")
      .field("repetition_penalty", &P::repetition_penalty, "Over prompt and output; greater than 0, 1: none.")
      .field("presence_penalty", &P::presence_penalty, "[-2, 2]; over output.")
      .field("frequency_penalty", &P::frequency_penalty, "[-2, 2]; over output.")
      .field("logit_bias", &P::logit_bias, "Added to the logits of these tokens.")
      .field("seed", &P::seed, "Sample i draws from (seed, i, position); None: chosen anew for each request.");
  add_stop(fields);
  fields.field("stop_token_ids", &P::stop_token_ids, "Tokens that end the output.")
      .field("ignore_eos", &P::ignore_eos, "Go on behind end-of-sequence tokens.")
      .field("min_tokens", &P::min_tokens, "No end before this many tokens.")
      .field("max_tokens", &P::max_tokens, "Tokens; None: up to the context's end.")
      .field("num_speculative_tokens", &P::num_speculative_tokens,
             "Tokens guessed at a time, at most; None: as the model is set; 0: no guesses. The output is the same.")
      .field("n", &P::n, "Independent samples of one prompt, 1 to 16.")
      .field("logprobs", &P::logprobs, "0 to 20: the logprob of each token and this many best; None: none.")
      .field("prompt_logprobs", &P::prompt_logprobs, "0 to 20: the same of the prompt's tokens.")
      .field("answer_cache", &P::answer_cache,
             "Greedy requests may be answered from the model's cache of answers; False: computed, and not kept.");
  add_prompt_rows(fields);
  add_constraints(fields);
  fields.one_of({"json_schema", "regex", "grammar", "json_object", "choices"}).finish();
  g_fill = new Filler(fields.filler());  // NOLINT(cppcoreguidelines-owning-memory): for the process
}

std::optional<SamplingParams> plain_sampling(nb::handle given, const nb::dict& fields) {
  SamplingParams chosen;
  if (!given.is_none()) {
    const P* params = nullptr;
    if (!nb::try_cast(given, params) || params == nullptr) return std::nullopt;
    chosen = *params;
  }
  if (fields.size() == 0) return chosen;
  try {
    (*g_fill)(chosen, nb::borrow<nb::kwargs>(fields));
  } catch (nb::python_error& error) {
    return std::nullopt;
  }
  return chosen;
}

void raise_wrong_type(std::string_view what, std::string_view expected, nb::handle value) {
  const std::string message =
      std::string(what) + ": expected " + std::string(expected) + ", got " + nb::repr(value).c_str();
  PyErr_SetString(PyExc_TypeError, message.substr(0, 500).c_str());
  throw nb::python_error();
}

void raise_out_of_range(std::string_view what, const std::string& range, nb::handle value) {
  const std::string got = nb::repr(value).c_str();
  raise(make_error(ErrorCode::invalid_argument,
                   std::string(what) + ": expected " + range + ", got " + got.substr(0, 60),
                   std::string(what.substr(what.rfind('.') + 1))));
}

bool says_something(nb::handle value) {
  if (value.is_none() || value.ptr() == Py_False) return false;
  return !PyList_Check(value.ptr()) || PyList_GET_SIZE(value.ptr()) > 0;
}

nb::object signature_of(const nb::list& parameters) {
  const nb::object inspect = nb::module_::import_("inspect");
  const nb::object parameter = inspect.attr("Parameter");
  nb::list made;
  for (const nb::handle row : parameters) {
    made.append(
        parameter(row[0], parameter.attr("KEYWORD_ONLY"), nb::arg("default") = row[2], nb::arg("annotation") = row[1]));
  }
  return inspect.attr("Signature")(made);
}

}  // namespace inferneo::python
