// What the names in requests mean: a registry's snapshot, made quick to ask. Immutable and pure.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "manager/registry_records.h"

namespace inferneo {

class Catalog {
 public:
  // `default_name`: what a request without a name means; empty or unknown: the first that is registered.
  explicit Catalog(RegistrySnapshot snapshot = {}, std::string default_name = {});

  // The versions that may answer for a name, name:version or alias, the best first: one for a full id and for a name
  // whose active version is set, else all that the policy serves, the latest first.
  // not_found names the nearest that there are; conflict: a version that the policy does not serve.
  Result<std::vector<ModelId>> resolve(std::string_view text) const;

  // How answers name it: by its name alone while that has no other version.
  std::string shown(const ModelId& id) const;
  std::string shown(std::string_view id) const;                  // name:version
  bool is_active(const ModelId& id) const;                       // what the bare name means, if all goes well
  std::vector<std::string> aliases_of(const ModelId& id) const;  // that mean this version

  const RegistrySnapshot& snapshot() const { return snapshot_; }

 private:
  struct Name {
    std::vector<std::string> versions;  // in order of registration
    std::vector<std::string> best;      // what the bare name means, the best first
    VersionPolicy policy;
  };
  Error unknown(std::string_view text) const;
  Result<std::vector<ModelId>> resolve_parts(const std::string& name, const std::string& version) const;

  RegistrySnapshot snapshot_;
  std::string default_name_;
  std::map<std::string, Name, std::less<>> names_;
};

}  // namespace inferneo
