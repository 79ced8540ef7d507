// Runs the program as a script would.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>

namespace inferneo {

struct Outcome {
  int code;          // 128 and more: the signal that ended it
  std::string text;  // of both streams
};

// In an empty folder and an empty environment but for `environment`.
inline Outcome run(const std::string& arguments, const std::string& environment = "") {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "inferneo_program_test";
  std::filesystem::create_directories(folder);
  const std::string command = "exec 2>&1 </dev/null; cd '" + folder.string() + "' && env -i " + environment +
                              " '" INFERNEO_PROGRAM "' " + arguments;
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  std::array<char, 4096> chunk;
  while (const size_t count = std::fread(chunk.data(), 1, chunk.size(), pipe)) text.append(chunk.data(), count);
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text};
}

}  // namespace inferneo
