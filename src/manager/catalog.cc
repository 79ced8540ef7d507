#include "manager/catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/config/suggest.h"

namespace inferneo {
namespace {

constexpr size_t kShownBytes = 128;  // names are the caller's: shortened, so that an error never grows with its input
constexpr size_t kShownNames = 8;

std::pair<std::string, std::string> split(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return {std::string(text), {}};
  return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

}  // namespace

Catalog::Catalog(RegistrySnapshot snapshot, std::string default_name, const std::vector<ModelVariant>& variants)
    : snapshot_(std::move(snapshot)), default_name_(std::move(default_name)) {
  for (const ModelRecord& model : snapshot_.models) names_[model.id.name].versions.push_back(model.id.version);
  for (const NameRecord& record : snapshot_.names) {
    const auto found = names_.find(record.name);
    if (found == names_.end()) continue;
    Name& name = found->second;
    name.policy = record.policy;
    if (record.active) {
      name.best = {*record.active};
      continue;
    }
    for (auto version = name.versions.rbegin(); version != name.versions.rend(); ++version) {
      if (serves(name.policy, *version)) name.best.push_back(*version);
    }
  }
  if (names_.find(default_name_) == names_.end()) {
    default_name_ = snapshot_.models.empty() ? std::string() : snapshot_.models.front().id.name;
  }
  for (const ModelVariant& variant : variants) add_variant(variant);
}

void Catalog::add_variant(const ModelVariant& variant) {
  const auto base =
      names_variant(variant.base) ? Result<std::vector<ModelId>>(unknown(variant.base)) : resolve(variant.base);
  const ModelRecord* const record = base.ok() ? snapshot_.find_model(base->front()) : nullptr;
  if (record == nullptr) return;
  Variant added{.record = *record, .of = record->id.text()};
  added.record.id.version += ModelVariant::kVariantSign + variant.mark;
  for (const auto& [name, value] : variant.settings) added.record.settings[name] = value;
  added.record.pinned = false;
  added.record.last_used = added.record.load_count = 0;
  variant_names_.emplace(added.record.id.text(), added.record.id);
  variant_names_.emplace(variant.name(), added.record.id);
  variants_.push_back(std::move(added));
}

Result<std::vector<ModelId>> Catalog::resolve(std::string_view text) const {
  if (text.empty() && default_name_.empty()) {
    return make_error(ErrorCode::not_found, "no model is registered yet; register one first", "model");
  }
  if (names_variant(text)) {
    const auto variant = variant_names_.find(text);
    if (variant == variant_names_.end()) return unknown(text);
    return std::vector<ModelId>{variant->second};
  }
  const auto [name, version] = split(text.empty() ? std::string_view(default_name_) : text);
  if (names_.find(name) == names_.end()) {
    const auto alias = std::find_if(snapshot_.aliases.begin(), snapshot_.aliases.end(),
                                    [&](const AliasRecord& record) { return record.alias == text; });
    if (alias == snapshot_.aliases.end() || names_.find(alias->name) == names_.end()) return unknown(text);
    return resolve_parts(alias->name, alias->version.value_or(""));
  }
  const bool bare = text.find(':') == std::string_view::npos;
  if (!bare && version.empty()) return unknown(text);
  return resolve_parts(name, version);
}

Result<std::vector<ModelId>> Catalog::resolve_parts(const std::string& name, const std::string& version) const {
  const Name& known = names_.find(name)->second;
  std::vector<ModelId> ids;
  if (version.empty()) {
    for (const std::string& best : known.best) ids.push_back({name, best});
    if (ids.empty()) {
      return make_error(ErrorCode::conflict, fmt::format("none of the versions of '{}' is served", name), "model");
    }
    return ids;
  }
  if (std::find(known.versions.begin(), known.versions.end(), version) == known.versions.end()) {
    return unknown(name + ":" + version);
  }
  if (!serves(known.policy, version)) {
    return make_error(ErrorCode::conflict,
                      fmt::format("the version policy of '{}' does not serve version {}", name, version), "model");
  }
  ids.push_back({name, version});
  return ids;
}

Error Catalog::unknown(std::string_view text) const {
  std::vector<std::string> known;
  for (const auto& [name, entry] : names_) known.push_back(name);
  const auto [name, version] = split(text);
  const auto of_name = names_.find(name);
  const bool only_version = of_name != names_.end();
  if (only_version) {
    known.clear();
    for (const std::string& other : of_name->second.versions) known.push_back(name + ":" + other);
  } else {
    for (const AliasRecord& alias : snapshot_.aliases) known.push_back(alias.alias);
  }
  const std::string shown(text.substr(0, kShownBytes));
  const std::vector<std::string_view> views(known.begin(), known.end());
  std::string hint = did_you_mean(shown, views);
  if (hint.empty()) {
    std::string list;
    for (size_t i = 0; i < std::min(known.size(), kShownNames); ++i) list += (i > 0 ? ", " : "") + known[i];
    if (known.size() > kShownNames) list += fmt::format(" and {} more", known.size() - kShownNames);
    hint = known.empty() ? "; no model is registered yet" : "; there is: " + list;
  }
  return make_error(ErrorCode::not_found, fmt::format("the model '{}' does not exist{}", shown, hint), "model");
}

std::string Catalog::shown(const ModelId& id) const {
  if (const size_t sign = id.version.find(ModelVariant::kVariantSign); sign != std::string::npos) {
    return shown(ModelId{id.name, id.version.substr(0, sign)}) + id.version.substr(sign);
  }
  const auto found = names_.find(id.name);
  return found != names_.end() && found->second.versions.size() == 1 ? id.name : id.text();
}

std::string Catalog::shown(std::string_view id) const {
  auto [name, version] = split(id);
  return shown(ModelId{std::move(name), std::move(version)});
}

bool Catalog::is_active(const ModelId& id) const {
  const auto found = names_.find(id.name);
  return found != names_.end() && !found->second.best.empty() && found->second.best.front() == id.version;
}

std::vector<std::string> Catalog::aliases_of(const ModelId& id) const {
  std::vector<std::string> aliases;
  for (const AliasRecord& record : snapshot_.aliases) {
    if (record.name != id.name) continue;
    if (record.version ? *record.version == id.version : is_active(id)) aliases.push_back(record.alias);
  }
  return aliases;
}

}  // namespace inferneo
