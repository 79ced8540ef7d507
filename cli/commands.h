// The commands' entry points, and the rows of those that have options of their own.
#pragma once

#include <span>

#include "cli/command.h"

namespace inferneo {

int run_serve(const Invocation& invocation, CommandContext& context);
int run_run(const Invocation& invocation, CommandContext& context);
int run_bench(const Invocation& invocation, CommandContext& context);
int run_pull(const Invocation& invocation, CommandContext& context);
int run_convert(const Invocation& invocation, CommandContext& context);
int run_doctor(const Invocation& invocation, CommandContext& context);
int run_config(const Invocation& invocation, CommandContext& context);
int run_models(const Invocation& invocation, CommandContext& context);
int run_register(const Invocation& invocation, CommandContext& context);
int run_set(const Invocation& invocation, CommandContext& context);
int run_remove(const Invocation& invocation, CommandContext& context);
int run_load(const Invocation& invocation, CommandContext& context);
int run_unload(const Invocation& invocation, CommandContext& context);
int run_sleep(const Invocation& invocation, CommandContext& context);
int run_wake_up(const Invocation& invocation, CommandContext& context);
int run_switch(const Invocation& invocation, CommandContext& context);
int run_pin(const Invocation& invocation, CommandContext& context);
int run_unpin(const Invocation& invocation, CommandContext& context);
int run_keep_alive(const Invocation& invocation, CommandContext& context);
int run_alias(const Invocation& invocation, CommandContext& context);
int run_unalias(const Invocation& invocation, CommandContext& context);
int run_verify(const Invocation& invocation, CommandContext& context);
int run_plan(const Invocation& invocation, CommandContext& context);
int run_route(const Invocation& invocation, CommandContext& context);
int run_ab(const Invocation& invocation, CommandContext& context);

std::span<const CommandOption> run_options();
std::span<const CommandOption> bench_options();
std::span<const CommandOption> pull_options();
std::span<const CommandOption> convert_options();
std::span<const CommandOption> config_options();
std::span<const CommandOption> models_options();
std::span<const CommandOption> register_options();
std::span<const CommandOption> set_options();
std::span<const CommandOption> change_options();  // of pin, unpin, keep-alive, alias, unalias
std::span<const CommandOption> remove_options();
std::span<const CommandOption> load_options();  // of verify too
std::span<const CommandOption> unload_options();
std::span<const CommandOption> switch_options();
std::span<const CommandOption> plan_options();
std::span<const CommandOption> route_options();
std::span<const CommandOption> ab_options();

}  // namespace inferneo
