// The commands' entry points, and the rows of those that have options of their own.
#pragma once

#include <span>

#include "cli/command.h"

namespace inferneo {

int run_serve(const Invocation& invocation, CommandContext& context);
int run_run(const Invocation& invocation, CommandContext& context);
int run_bench(const Invocation& invocation, CommandContext& context);
int run_pull(const Invocation& invocation, CommandContext& context);
int run_config(const Invocation& invocation, CommandContext& context);

std::span<const CommandOption> run_options();
std::span<const CommandOption> bench_options();
std::span<const CommandOption> pull_options();
std::span<const CommandOption> config_options();

}  // namespace inferneo
