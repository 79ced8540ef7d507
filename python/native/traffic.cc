#include "data.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

// An enumeration is shown as the word that files and the API have for it.
template <typename T, typename E, typename NameOf, typename Parse>
void add_words(Fields<T>& fields, const char* name, E T::*member, const char* type, const char* doc, NameOf name_of,
               Parse parse) {
  fields.property(
      name, type, doc, [member, name_of](const T& self) { return nb::cast(std::string(name_of(self.*member))); },
      [member, parse, name, type](T& self, nb::handle value) {
        std::string word;
        if (!nb::try_cast(value, word)) raise_wrong_type(name, type, value);
        const auto parsed = parse(word);
        if (!parsed) raise_wrong_type(name, type, value);
        self.*member = *parsed;
      });
}

template <typename Parse>
auto as_optional(Parse parse) {
  return [parse](const std::string& word) {
    auto result = parse(word);
    using Value = std::decay_t<decltype(*result)>;
    return result.ok() ? std::optional<Value>(*result) : std::optional<Value>();
  };
}

void bind_rules(nb::module_& module) {
  using F = RoutingRefusal;
  Fields<F>(module, "RoutingRefusal", "The answer to requests that a rule refuses.")
      .field("status", &F::status, "HTTP status, 400 to 599.")
      .field("message", &F::message, "For the client.")
      .finish();
  using R = RoutingRule;
  Fields<R> rule(module, "RoutingRule",
                 "Which requests go where; docs/routing.md has the language of conditions. Exactly one of model_name, "
                 "ab_test, models and refusal is set.");
  rule.field("name", &R::name, "Unique; 1 to 128 of letters, digits and _ - . /")
      .field("condition", &R::condition, "When it matches; \"true\": always.")
      .field("model_name", &R::model_name, "A name, name:version or alias.")
      .field("priority", &R::priority, "Higher is asked earlier; among equals the older rule.")
      .field("ab_test", &R::ab_test, "An A/B test's name.")
      .field("models", &R::models, "A chain: the first, and what follows it when it cannot serve.")
      .field("refusal", &R::refusal, "No model: this answer.")
      .field("enabled", &R::enabled, "False: it is kept and not asked.");
  add_words(rule, "applies_to", &R::applies_to, "Literal['routed', 'all']",
            "routed: requests that leave the choice open; all: those that name a model as well.", routing_scope_name,
            routing_scope_of);
  rule.finish();
  using C = RoutingCandidate;
  Fields<C>(module, "RoutingCandidate", "A model that a strategy may choose.")
      .field("model", &C::model, "A name, name:version or alias.")
      .field("weight", &C::weight, "For the strategy weighted; 0: never.")
      .finish();
  using O = RuleSetOptions;
  Fields<O> options(module, "RoutingOptions", "How a model is chosen where no rule matches.");
  add_words(options, "strategy", &O::strategy,
            "Literal['default', 'round_robin', 'least_loaded', 'lowest_latency', 'weighted']",
            "How one of the candidates is chosen.", routing_strategy_name, routing_strategy_of);
  options.field("default_model", &O::default_model, "Empty: the first model.")
      .field("candidates", &O::candidates, "Of every strategy but 'default'.")
      .field("spill_over_at", &O::spill_over_at, "Requests waiting for a model of a chain; 0: never.")
      .field("fallbacks", &O::fallbacks, "Model -> what follows when it cannot serve.")
      .finish();
}

void bind_tests(nb::module_& module) {
  using S = SamplingOverrides;
  Fields<S>(module, "SamplingOverrides", "What an arm samples differently; None: as the request has it.")
      .field("temperature", &S::temperature, "See SamplingParams, as for the other fields.")
      .field("top_k", &S::top_k, "See SamplingParams.")
      .field("top_p", &S::top_p, "See SamplingParams.")
      .field("min_p", &S::min_p, "See SamplingParams.")
      .field("repetition_penalty", &S::repetition_penalty, "See SamplingParams.")
      .field("presence_penalty", &S::presence_penalty, "See SamplingParams.")
      .field("frequency_penalty", &S::frequency_penalty, "See SamplingParams.")
      .field("max_tokens", &S::max_tokens, "Tokens.")
      .finish();
  using A = ABTestArm;
  Fields<A>(module, "ABTestArm", "One of the models or ways of sampling that an A/B test compares.")
      .field("name", &A::name, "1 to 64 of [A-Za-z0-9._-]; empty: A, B, C, ...")
      .field("model", &A::model, "As it is registered.")
      .field("version", &A::version, "Empty: whichever the name means.")
      .field("weight", &A::weight, "Its share is its weight over the sum of all.")
      .field("sampling", &A::sampling, "What it samples differently.")
      .field("prompt_template", &A::prompt_template, "A chat template instead of the model's own.")
      .field("system_prompt", &A::system_prompt, "Begins those of its chats that have no system message.")
      .field("settings", &A::settings, "Engine settings of this arm, by their configuration names.")
      .field("prompt_price", &A::prompt_price, "Per million tokens, in any currency.")
      .field("completion_price", &A::completion_price, "Per million tokens.")
      .finish();
  using Step = ABTestRampStep;
  Fields<Step>(module, "ABTestRampStep", "From after_seconds of running time on, share of the traffic leaves arm A.")
      .field("after_seconds", &Step::after_seconds, "Seconds of running time.")
      .field("share", &Step::share, "Of the traffic, [0, 1].")
      .finish();
  using G = ABTestGuardrails;
  Fields<G>(module, "ABTestGuardrails", "Limits that stop an arm once it is certain that it breaks them.")
      .field("max_error_rate", &G::max_error_rate, "(0, 1).")
      .field("max_p95_time_to_first_token", &G::max_p95_time_to_first_token, "Seconds.")
      .field("minimum_samples", &G::minimum_samples, "Of an arm, before it may be stopped.")
      .finish();
  using T = ABTestConfig;
  Fields<T> test(
      module, "ABTestConfig",
      "An A/B test (docs/experiments.md): model_a, model_b and traffic_split, or two to eight arms in full.");
  test.field("name", &T::name, "1 to 128 of [A-Za-z0-9._-].")
      .field("model_a", &T::model_a, "What is there.")
      .field("model_b", &T::model_b, "What is tried.")
      .field("traffic_split", &T::traffic_split, "The share of arm B, in (0, 1).")
      .field("arms", &T::arms, "Instead of the three above; the first is A.")
      .field("salt", &T::salt, "Another salt assigns anew; empty: the name.")
      .field("ramp", &T::ramp, "Times and shares rise, and the last share is the full one; empty: at once.")
      .field("guardrails", &T::guardrails, "What stops an arm by itself.")
      .field("false_alarm_rate", &T::false_alarm_rate, "(0, 0.5).")
      .field("minimum_effect", &T::minimum_effect, "A ratio worth knowing: 0.1 is 10 %; (0, 1].")
      .field("minimum_difference", &T::minimum_difference, "A difference of rates worth knowing; (0, 1).")
      .field("minimum_samples", &T::minimum_samples, "Of each arm, before anything is said; at least 30.");
  add_words(test, "sticky_by", &T::sticky_by, "Literal['user', 'session', 'request']",
            "The same key always gets the same arm.", ab_test_key_name, as_optional(parse_ab_test_key));
  std::string metrics = "Literal[";
  for (const ABTestMetric metric : all_ab_test_metrics()) {
    metrics += (metrics.back() == '[' ? "'" : ", '") + std::string(ab_test_metric_name(metric)) + "'";
  }
  static const std::string kMetrics = metrics + "]";
  add_words(test, "primary_metric", &T::primary_metric, kMetrics.c_str(), "The one that decides.", ab_test_metric_name,
            as_optional(parse_ab_test_metric));
  test.finish();
}

void bind_shadows(nb::module_& module) {
  using S = ShadowConfig;
  Fields<S>(module, "ShadowConfig", "Copies of a share of one model's requests go to another (docs/shadow.md).")
      .field("name", &S::name, "1 to 128 of [A-Za-z0-9._-].")
      .field("model", &S::model, "Whose requests are copied; empty: everybody's.")
      .field("shadow_model", &S::shadow_model, "Who gets the copies.")
      .field("share", &S::share, "Of the requests, (0, 1].")
      .field("salt", &S::salt, "Another salt chooses anew; empty: the name.")
      .field("max_tokens_per_minute", &S::max_tokens_per_minute, "Of copies; 0: no limit.")
      .field("max_concurrent", &S::max_concurrent, "Copies that the shadow model has in hand, 1 to 1024.")
      .field("max_queue", &S::max_queue, "Copies that wait for that, 0 to 65536.")
      .field("load", &S::load, "Load the shadow model where there is room for it.")
      .field("keep_texts", &S::keep_texts, "Keep both texts (their beginnings) in the results.")
      .field("enabled", &S::enabled, "False: nothing is copied.")
      .finish();
}

}  // namespace

void bind_traffic(nb::module_& module) {
  bind_rules(module);
  bind_tests(module);
  bind_shadows(module);
}

}  // namespace inferneo::python
