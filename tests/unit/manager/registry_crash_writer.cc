// registry_crash_writer PATH SEED: opens the registry, says so ('o'), then writes without end, saying after each
// operation whether it was done ('y') or refused ('n'). Its parent kills it.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "unit/manager/registry_churn.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  auto registry = inferneo::Registry::open(argv[1]);
  if (!registry.ok()) {
    std::fprintf(stderr, "%s\n", registry.error().message.c_str());
    return 1;
  }
  inferneo::testing::RegistryChurn churn(std::strtoull(argv[2], nullptr, 10));
  char answer = 'o';
  while (::write(STDOUT_FILENO, &answer, 1) == 1) answer = churn.step(**registry) ? 'y' : 'n';
  return 3;
}
