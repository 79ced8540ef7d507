#define INFERNEO_JSON_INSTANCES
#include "support/json_instances.h"
