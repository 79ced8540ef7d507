// Shadow traffic as its owner writes it: copies of a share of one model's requests go to another model, which answers
// them when nothing else is to be done; what it says is kept beside the original's answer and never sent to anybody.
// Plain data; it is checked when the shadow is added, and errors name the field. docs/shadow.md explains it.
//
//   ShadowConfig{.name = "next", .model = "story", .shadow_model = "story:2", .share = 0.1}
#pragma once

#include <cstdint>
#include <string>

namespace inferneo {

struct ShadowConfig {
  std::string name = {};              // 1 to 128 of [A-Za-z0-9._-]
  std::string model = {};             // whose requests are copied: a name, name:version or alias; empty: everybody's
  std::string shadow_model = {};      // who gets the copies: the same
  double share = 1.0;                 // of the requests, (0, 1]; the same request key always gets the same answer
  std::string salt = {};              // another salt chooses anew; empty: the name
  int64_t max_tokens_per_minute = 0;  // of prompts and completions of copies; 0: no limit
  int64_t max_concurrent = 16;        // copies that the shadow model has in hand, 1 to 1024
  int64_t max_queue = 1024;           // copies that wait for that, 0 to 65536; what comes on top is dropped
  bool load = false;                  // load the shadow model where there is room for it; else copies wait for nobody
  bool keep_texts = false;            // keep both texts (their beginnings) in the results
  bool enabled = true;

  bool operator==(const ShadowConfig&) const = default;
};

}  // namespace inferneo
