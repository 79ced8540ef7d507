// From what a user writes to the directory of a model: a local path, or a Hugging Face hub id `org/name[@revision]`
// that is already in the hub's cache (models--org--name/{refs,snapshots,blobs}). Nothing is downloaded here;
// hub_client.h does that.
//
// Pure but for the file system; the environment is read by the configuration and comes in as HubEnvironment.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/model_directory.h"

namespace inferneo {

// Values of the environment variables that say where the hub cache is; empty: not set.
struct HubEnvironment {
  std::string hf_hub_cache{};    // HF_HUB_CACHE
  std::string hf_home{};         // HF_HOME
  std::string xdg_cache_home{};  // XDG_CACHE_HOME
  std::string home{};            // HOME
};
// The first of HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, HOME/.cache/huggingface/hub; empty: none.
std::string hub_cache_directory(const HubEnvironment& environment);

struct ModelSourceOptions {
  std::string hub_cache{};           // as hub_cache_directory() says; always a root
  std::vector<std::string> roots{};  // directories in which models may lie
  // Written by the operator, on the command line or in the configuration file: a path then is a root of its own.
  // Otherwise (a request to the admin API) it must lie within the roots and may not contain `..`.
  bool named_by_operator = false;
};

struct ModelSource {
  ModelDirectory directory;
  std::string revision;   // the commit of a hub snapshot; empty for a local path
  std::string file = {};  // the .onnx file in the directory that was named outright; empty: the directory was
};

// The path of an .onnx file stands for the directory that holds it, and for that file in it.
// An existing directory wins over a hub id, as in transformers.
// Errors: not_found says what to do; refused; invalid_argument when the name is neither a path nor a hub id.
Result<ModelSource> resolve_model_source(const std::string& name, const ModelSourceOptions& options);

// "; there is no directory of that name here" with the nearest that there is; for errors about names that are hub ids
// as well. Of what the operator wrote only: others may not learn what there is.
std::string no_directory_hint(const std::string& name);

struct HubId {
  std::string repository;  // "org/name" or "name"
  std::string revision;    // "main" when none is given
};
// By the hub's own rules for names.
Result<HubId> parse_hub_id(std::string_view text);

}  // namespace inferneo
