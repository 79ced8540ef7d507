// Loads a graph in a child process first, so that what kills or hangs the library there does not kill or hang the
// server.
//
// The child is this program again with a hidden command (`inferneo onnx-check`). It has no file of ours but its output,
// takes its limits on memory and CPU time upon itself, loads the graph as the server would, with the trial of
// graph_trial.h, and says how that went. A child that dies, or is not done in time, refuses the load. A file that has
// passed is not tried again while it stays the same. Passing is no proof: a graph can behave until it sees some token.
// Threads: any. Errors: refused, with how the child ended; malformed, with what the library said there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace inferneo::onnx {

struct GraphCheckOptions {
  enum class When : uint8_t { foreign, always, never };
  When when = When::foreign;  // foreign: what our converter has not written for this home
  // The command that checks; the arguments of run_graph_check() follow. Empty: the program of this process when it is
  // `inferneo`, or one of that name beside it.
  std::vector<std::string> command = {};
  Duration patience = std::chrono::seconds(120);  // and kCheckedBytesPerSecond beside it
};
inline constexpr uint64_t kCheckedBytesPerSecond = uint64_t{32} << 20;

struct GraphCheckRequest {
  std::string model;          // as its user names it
  std::string folder;         // of the model
  std::string file;           // of the graph, in it
  std::string library;        // file of ONNX Runtime, the one that this process has
  std::string key;            // of the files as they are; the same key is checked once
  uint64_t bytes = 0;         // of all files
  int32_t max_model_len = 0;  // OnnxLoadOptions
  std::string task = "auto";  // the same
};
// Every file has been looked at before: nothing outside the allowed folders, and what the scan lets through.
Status check_graph_in_child(const GraphCheckOptions& options, const GraphCheckRequest& request);

// The command of a child by itself; empty: there is no such program.
std::vector<std::string> default_check_command();

// The child's side: `arguments` as the parent wrote them. Prints "ok" or a message; the process's exit status.
int run_graph_check(const std::vector<std::string>& arguments);

}  // namespace inferneo::onnx
