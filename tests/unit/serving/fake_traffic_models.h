// Models for tests of rules and A/B tests: names, versions and aliases, and what a chain is told of them.
#pragma once

#include <map>
#include <set>
#include <string>

#include "serving/traffic.h"

namespace inferneo {

class FakeModels final : public TrafficModels {
 public:
  std::optional<std::string> resolve(std::string_view name) const override {
    std::string text(name.empty() ? std::string_view("story") : name);
    if (const auto alias = aliases.find(text); alias != aliases.end()) text = alias->second;
    if (text.find(':') == std::string::npos) text += ":1";
    if (!models.contains(text)) return std::nullopt;
    return text;
  }
  std::optional<std::string> alias_target(std::string_view name) const override {
    const auto alias = aliases.find(std::string(name));
    if (alias == aliases.end()) return std::nullopt;
    return alias->second;
  }
  std::vector<std::string> names() const override { return {"story", "code", "large"}; }
  ChainLink link(std::string_view name) const override {
    const auto found = links.find(std::string(name));
    return found == links.end() ? ChainLink{} : found->second;
  }
  CandidateView candidate(std::string_view) const override { return {}; }
  Status check_variant(const ModelVariant& variant) const override {
    if (!variant.settings.contains("zebra")) return ok_status();
    return make_error(ErrorCode::invalid_argument, "'zebra' is no setting of a model", "settings");
  }
  void set_variants(std::vector<ModelVariant> now) override { variants.push_back(std::move(now)); }

  std::set<std::string> models = {"story:1", "story:2", "code:1", "large:1"};
  std::map<std::string, std::string> aliases = {{"tale", "story"}};
  std::map<std::string, ChainLink> links;
  std::vector<std::vector<ModelVariant>> variants;  // as they were set, one after the other
};

}  // namespace inferneo
