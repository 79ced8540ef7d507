#include "serving/shadow_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "serving/traffic.h"

namespace inferneo {
namespace {

constexpr size_t kMaxShadows = 64;
constexpr size_t kMaxModelName = 256;
constexpr double kSmallestShare = 1e-6;

Error wrong(std::string message, std::string param) {
  return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
}

Error no_shadow(std::string_view name) {
  return make_error(ErrorCode::not_found, fmt::format("there is no shadow '{}'", name.substr(0, 128)), "name");
}

bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

Status check_range(int64_t value, int64_t least, int64_t most, const char* field) {
  if (value >= least && value <= most) return ok_status();
  return wrong(fmt::format("{} is {}, and it must be between {} and {}", field, value, least, most), field);
}

// What is the same for all copies of one request: chosen or not.
std::string_view key_of(const GenerateRequest& request) {
  return request.traits.key.empty() ? std::string_view(request.request_id) : std::string_view(request.traits.key);
}

// The original's way: everything passes through, and is noted.
class ShadowTap final : public OutputSink {
 public:
  ShadowTap(std::vector<std::shared_ptr<Shadow>> shadows, std::shared_ptr<OutputSink> sink)
      : shadows_(std::move(shadows)),
        sink_(std::move(sink)),
        original_(std::make_shared<ShadowOriginal>(std::any_of(
            shadows_.begin(), shadows_.end(), [](const auto& shadow) { return shadow->config().keep_texts; }))) {}

  void on_route(std::string route) override { sink_->on_route(std::move(route)); }
  void on_prompt(PromptInfo info) override {
    original_->answer.add(info);
    sink_->on_prompt(std::move(info));
  }
  void on_delta(OutputDelta delta) override {
    original_->answer.add(delta);
    sink_->on_delta(std::move(delta));
  }
  void on_done(GenerateOutcome outcome) override {
    original_->answer.end(outcome);
    sink_->on_done(std::move(outcome));
    std::vector<Pending> pending;
    {
      const std::lock_guard lock(mutex_);
      original_->ended = true;
      pending.swap(pending_);
    }
    for (const Pending& one : pending) one.shadow->original_ended(one.copy);
  }

  // On another thread than the events, before or after the last of them.
  void accepted(const GenerateRequest& request, int32_t prompt_tokens) {
    for (const std::shared_ptr<Shadow>& shadow : shadows_) {
      auto copy = shadow->offer(request, prompt_tokens, original_);
      if (copy == nullptr) continue;
      {
        const std::lock_guard lock(mutex_);
        if (!original_->ended) {
          pending_.push_back({shadow, std::move(copy)});
          continue;
        }
      }
      shadow->original_ended(copy);
    }
  }

 private:
  struct Pending {
    std::shared_ptr<Shadow> shadow;
    std::shared_ptr<Shadow::Copy> copy;
  };
  const std::vector<std::shared_ptr<Shadow>> shadows_;
  const std::shared_ptr<OutputSink> sink_;
  const std::shared_ptr<ShadowOriginal> original_;
  std::mutex mutex_;
  std::vector<Pending> pending_;
};

}  // namespace

Status check_shadow(const ShadowConfig& config) {
  if (!is_word(config.name)) {
    return wrong(fmt::format("'{}' is not a name of a shadow: 1 to 128 letters, digits, '.', '_' or '-'",
                             config.name.substr(0, 128)),
                 "name");
  }
  if (config.shadow_model.empty()) {
    return wrong(fmt::format("the shadow '{}' names no shadow_model, who gets the copies", config.name),
                 "shadow_model");
  }
  if (config.model.size() > kMaxModelName) return wrong("model is too long for a model's name", "model");
  if (config.shadow_model.size() > kMaxModelName) {
    return wrong("shadow_model is too long for a model's name", "shadow_model");
  }
  if (!(config.share >= kSmallestShare && config.share <= 1.0)) {
    return wrong(fmt::format("share is {}, and it must be between {} and 1", config.share, kSmallestShare), "share");
  }
  if (config.salt.size() > 256) return wrong("salt is longer than 256 bytes", "salt");
  RETURN_IF_ERROR(check_range(config.max_tokens_per_minute, 0, int64_t{1} << 40, "max_tokens_per_minute"));
  RETURN_IF_ERROR(check_range(config.max_concurrent, 1, 1024, "max_concurrent"));
  return check_range(config.max_queue, 0, 65536, "max_queue");
}

ShadowBook::ShadowBook(Shadow::Host host, TrafficStore* store)
    : host_(std::move(host)), store_(store), holder_(std::make_shared<Entries>()) {}

ShadowBook::~ShadowBook() { stop(); }

Status ShadowBook::check(const ShadowConfig& config) const {
  RETURN_IF_ERROR(check_shadow(config));
  const auto known = [&](const std::string& model, const char* field) -> Status {
    if (host_.models.resolve(model)) return ok_status();
    return make_error(ErrorCode::not_found,
                      fmt::format("the shadow '{}': there is no model '{}'; register it first", config.name, model),
                      field);
  };
  if (!config.model.empty()) RETURN_IF_ERROR(known(config.model, "model"));
  return known(config.shadow_model, "shadow_model");
}

Status ShadowBook::begin(std::vector<ShadowConfig> configured) {
  KeptTraffic kept;
  if (store_ != nullptr) {
    ASSIGN_OR_RETURN(kept, store_->load());
  }
  for (ShadowConfig& config : configured) {
    RETURN_IF_ERROR(check(config));
    RETURN_IF_ERROR(put(std::move(config), RecordOrigin::config, {}));
  }
  for (ShadowConfig& config : kept.shadows) {
    // One whose model is gone stays, as it would have without a restart: its copies find nobody.
    if (const Status checked = check(config); !checked.ok()) log_warning("{}", checked.error().message);
    RETURN_IF_ERROR(put(std::move(config), RecordOrigin::api, {}));
  }
  return ok_status();
}

Status ShadowBook::add(ShadowConfig config) {
  RETURN_IF_ERROR(check(config));
  const TrafficEdit edit{.shadows = {config}};
  return put(std::move(config), RecordOrigin::api, edit);
}

Status ShadowBook::put(ShadowConfig config, RecordOrigin origin, const TrafficEdit& edit) {
  const std::lock_guard lock(changes_);
  if (stopped_) return make_error(ErrorCode::unavailable, "the server is shutting down");
  auto next = std::make_shared<Entries>(*holder_.current());
  if (std::any_of(next->begin(), next->end(), [&](const Entry& e) { return e.shadow->config().name == config.name; })) {
    return make_error(ErrorCode::already_exists, fmt::format("there is a shadow '{}' already", config.name), "name");
  }
  if (next->size() >= kMaxShadows) {
    return make_error(ErrorCode::conflict,
                      fmt::format("there are {} shadows, which is the limit; remove one", kMaxShadows));
  }
  RETURN_IF_ERROR(write(edit));
  next->push_back({std::make_shared<Shadow>(host_, std::move(config), std::make_shared<ShadowResults>()), origin});
  (void)holder_.replace(std::move(next));
  return ok_status();
}

namespace {

Error read_only(std::string_view name) {
  return make_error(ErrorCode::conflict,
                    fmt::format("the shadow '{}' is of the configuration file: change it there, and restart", name));
}

}  // namespace

Status ShadowBook::replace(ShadowConfig config) {
  RETURN_IF_ERROR(check(config));
  std::shared_ptr<Shadow> before;
  {
    const std::lock_guard lock(changes_);
    if (stopped_) return make_error(ErrorCode::unavailable, "the server is shutting down");
    auto next = std::make_shared<Entries>(*holder_.current());
    const auto found = std::find_if(next->begin(), next->end(),
                                    [&](const Entry& entry) { return entry.shadow->config().name == config.name; });
    if (found == next->end()) return no_shadow(config.name);
    if (found->origin == RecordOrigin::config) return read_only(config.name);
    RETURN_IF_ERROR(write({.shadows = {config}}));
    before = found->shadow;
    const ShadowConfig& old = before->config();
    const bool same_models = old.model == config.model && old.shadow_model == config.shadow_model;
    auto results = same_models ? before->results() : std::make_shared<ShadowResults>();
    found->shadow = std::make_shared<Shadow>(host_, std::move(config), std::move(results));
    (void)holder_.replace(std::move(next));
  }
  before->end();
  return ok_status();
}

Status ShadowBook::remove(const std::string& name) {
  std::shared_ptr<Shadow> gone;
  {
    const std::lock_guard lock(changes_);
    auto next = std::make_shared<Entries>(*holder_.current());
    const auto found = std::find_if(next->begin(), next->end(),
                                    [&](const Entry& entry) { return entry.shadow->config().name == name; });
    if (found == next->end()) return no_shadow(name);
    if (found->origin == RecordOrigin::config) return read_only(name);
    RETURN_IF_ERROR(write({.removed_shadows = {name}}));
    gone = found->shadow;
    next->erase(found);
    (void)holder_.replace(std::move(next));
  }
  gone->end();
  return ok_status();
}

ShadowBook::View ShadowBook::view_of(const Entry& entry) {
  return {entry.shadow->config(), entry.origin, entry.shadow->in_hand(), entry.shadow->results()};
}

std::vector<ShadowBook::View> ShadowBook::list() const {
  std::vector<View> views;
  for (const Entry& entry : *holder_.current()) views.push_back(view_of(entry));
  return views;
}

std::optional<ShadowBook::View> ShadowBook::find(std::string_view name) const {
  const std::shared_ptr<const Entries> now = holder_.current();
  for (const Entry& entry : *now) {
    if (entry.shadow->config().name == name) return view_of(entry);
  }
  return std::nullopt;
}

std::shared_ptr<OutputSink> ShadowBook::tap(GenerateRequest& request, std::shared_ptr<OutputSink> sink) const {
  const std::shared_ptr<const Entries> now = holder_.current();
  // Who forces an arm looks for something; that is no traffic.
  if (now->empty() || !request.traits.forced_arm.empty()) return sink;
  const bool says_nothing = request.sampling.prompt_rows != PromptRows::none || request.sampling.max_tokens == 0;
  if (says_nothing) return sink;  // there is no answer to compare
  const std::string model = host_.models.resolve(request.model).value_or("");
  std::vector<std::shared_ptr<Shadow>> wanting;
  for (const Entry& entry : *now) {
    if (entry.shadow->wants(model, key_of(request))) wanting.push_back(entry.shadow);
  }
  if (wanting.empty()) return sink;
  auto tap = std::make_shared<ShadowTap>(std::move(wanting), std::move(sink));
  request.on_submitted = [tap](const GenerateRequest& submitted, int32_t prompt_tokens) {
    tap->accepted(submitted, prompt_tokens);
  };
  return tap;
}

void ShadowBook::yield_room() const {
  for (const Entry& entry : *holder_.current()) entry.shadow->yield_room();
}

void ShadowBook::resume() const {
  for (const Entry& entry : *holder_.current()) entry.shadow->resume();
}

void ShadowBook::stop() {
  std::shared_ptr<const Entries> before;
  {
    const std::lock_guard lock(changes_);
    stopped_ = true;
    before = holder_.current();
  }
  for (const Entry& entry : *before) entry.shadow->end();
}

void ShadowBook::collect(std::vector<MetricSample>& out) const {
  for (const View& view : list()) {
    const std::lock_guard lock(view.results->mutex);
    const ShadowCounts& counts = view.results->counts;
    const auto add = [&](const char* metric, const char* label, const char* value, int64_t count) {
      out.push_back({metric, {{"shadow", view.config.name}, {label, value}}, static_cast<double>(count)});
    };
    add("inferneo:shadow_copies", "result", "completed", counts.completed);
    add("inferneo:shadow_copies", "result", "dropped", counts.all_dropped());
    add("inferneo:shadow_copies", "result", "failed", counts.failed);
    add("inferneo:shadow_tokens", "kind", "prompt", counts.prompt_tokens);
    add("inferneo:shadow_tokens", "kind", "completion", counts.completion_tokens);
  }
}

}  // namespace inferneo
