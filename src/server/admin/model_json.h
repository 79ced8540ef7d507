// The JSON objects of the admin API.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "manager/event_log.h"
#include "manager/model_loader.h"
#include "manager/model_plan.h"
#include "manager/model_status.h"
#include "manager/registry_records.h"
#include "server/admin/operation_table.h"
#include "server/json_writer.h"

namespace inferneo {

void write_model(JsonWriter& json, const ModelStatus& status);
void write_operation(JsonWriter& json, const Operation& operation);

std::string model_json(const ModelStatus& status);
std::string operation_json(const Operation& operation);
// `active`: what the name means now, set or by the policy.
std::string name_json(const NameRecord& record, const std::string& active);

std::string files_json(const std::vector<FileCheck>& files);
std::string plan_json(const ModelPlan& plan);

// One frame of the event stream.
std::string event_frame(const ModelEvent& event);

}  // namespace inferneo
