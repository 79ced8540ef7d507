// The registry's file: made when there is none, checked before anything in it is believed, brought to the newest schema
// after a backup. Nothing is changed in a file that is refused.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "manager/registry_schema.h"
#include "manager/sqlite.h"

namespace inferneo {

// The real path of the file, so that one file has one lock under whatever name; its folder is made (0700) when it is
// not there. refused for what is no regular file.
Result<std::string> resolve_registry_path(const std::string& path);

// `path` as resolved, its lock held. A new file comes into being complete (0600), so that an empty one is always
// damage. Errors name the file and the way out: malformed, unsupported, io_error, disk_full, unavailable, conflict.
Result<std::unique_ptr<Database>> open_registry_file(const std::string& path, std::span<const char* const> migrations);

// Adds the file and the way out to what is wrong with its content.
Error registry_file_error(const std::string& path, Error error);

}  // namespace inferneo
