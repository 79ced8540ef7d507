// The first tokens of a model that has just been loaded.
#pragma once

#include "manager/loaded_model.h"
#include "manager/model_loader.h"

namespace inferneo {

// So that what a first step alone costs (pages of weights and of the workspace, threads that sleep) is no client's to
// wait for, and a model that cannot compute is found before anybody asks it. In no metric of requests.
// The error of `report`, which is asked again and again, or why they could not be computed.
Status warm_up(const LoadedModel& model, const LoadReport& report);

}  // namespace inferneo
