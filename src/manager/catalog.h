// What the names in requests mean: a registry's snapshot, made quick to ask. Immutable and pure.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "manager/registry_records.h"

namespace inferneo {

// A registered model once more, with further settings of its engine: an A/B test has such, and no registry. It is found
// under names that nothing else can have and is no version of its name: nothing means it that does not name it.
struct ModelVariant {
  std::string base;  // as requests name it; when that means another version, so does the variant
  std::string mark;  // unique among the variants of the base: "comparison~B"
  std::map<std::string, std::string> settings;

  std::string name() const { return base + kVariantSign + mark; }  // "story~comparison~B"
  bool operator==(const ModelVariant&) const = default;

  static constexpr char kVariantSign = '~';  // in no name, version or alias
};
inline bool names_variant(std::string_view text) {
  return text.find(ModelVariant::kVariantSign) != std::string_view::npos;
}

class Catalog {
 public:
  // `default_name`: what a request without a name means; empty or unknown: the first that is registered. Variants of
  // what is not there are left out.
  explicit Catalog(RegistrySnapshot snapshot = {}, std::string default_name = {},
                   const std::vector<ModelVariant>& variants = {});

  // The versions that may answer for a name, name:version or alias, the best first: one for a full id and for a name
  // whose active version is set, else all that the policy serves, the latest first.
  // not_found names the nearest that there are; conflict: a version that the policy does not serve.
  Result<std::vector<ModelId>> resolve(std::string_view text) const;

  // How answers name it: by its name alone while that has no other version; a variant with its mark.
  std::string shown(const ModelId& id) const;
  std::string shown(std::string_view id) const;                  // name:version
  bool is_active(const ModelId& id) const;                       // what the bare name means, if all goes well
  std::vector<std::string> aliases_of(const ModelId& id) const;  // that mean this version

  const RegistrySnapshot& snapshot() const { return snapshot_; }
  // Their ids are those of their models with the sign and the mark: "story:1~comparison~B".
  struct Variant {
    ModelRecord record;  // with the settings of both
    std::string of;      // the id of its model
  };
  const std::vector<Variant>& variants() const { return variants_; }

 private:
  struct Name {
    std::vector<std::string> versions;  // in order of registration
    std::vector<std::string> best;      // what the bare name means, the best first
    VersionPolicy policy;
  };
  Error unknown(std::string_view text) const;
  void add_variant(const ModelVariant& variant);
  Result<std::vector<ModelId>> resolve_parts(const std::string& name, const std::string& version) const;

  RegistrySnapshot snapshot_;
  std::string default_name_;
  std::map<std::string, Name, std::less<>> names_;
  std::vector<Variant> variants_;
  std::map<std::string, ModelId, std::less<>> variant_names_;  // by name and by id
};

}  // namespace inferneo
