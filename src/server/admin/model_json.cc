#include "server/admin/model_json.h"

#include <map>
#include <vector>

namespace inferneo {
namespace {

void write_strings(JsonWriter& json, std::string_view name, const std::vector<std::string>& values) {
  json.key(name).begin_array();
  for (const std::string& value : values) json.string(value);
  json.end_array();
}

void write_map(JsonWriter& json, std::string_view name, const std::map<std::string, std::string>& values) {
  json.key(name).begin_object();
  for (const auto& [key, value] : values) json.field(key, value);
  json.end_object();
}

void write_text(JsonWriter& json, std::string_view name, std::string_view text) {
  json.key(name);
  if (text.empty()) {
    json.null();
  } else {
    json.string(text);
  }
}

void write_seconds(JsonWriter& json, std::string_view name, const std::optional<Duration>& duration) {
  json.key(name);
  if (duration) {
    json.number(to_seconds(*duration));
  } else {
    json.null();
  }
}

void write_integer(JsonWriter& json, std::string_view name, const std::optional<int64_t>& value) {
  json.key(name);
  if (value) {
    json.integer(*value);
  } else {
    json.null();
  }
}

void write_error(JsonWriter& json, std::string_view name, const std::optional<Error>& error) {
  json.key(name);
  if (!error) {
    json.null();
    return;
  }
  json.begin_object().field("code", error_info(error->code).name).field("message", error->message).end_object();
}

void write_progress(JsonWriter& json, const std::optional<LoadStage>& progress) {
  json.key("progress");
  if (!progress) {
    json.null();
    return;
  }
  json.begin_object().field("stage", progress->stage).field("bytes_done", progress->bytes_done);
  json.field("bytes_total", progress->bytes_total).end_object();
}

void write_record(JsonWriter& json, const ModelStatus& status) {
  const ModelRecord& record = status.record;
  json.field("source", record.source);
  write_text(json, "revision", record.revision);
  // As it was registered, else as its files were found to be.
  const std::optional<ModelFormat> format =
      record.format || status.model == nullptr ? record.format : status.model->format;
  write_text(json, "format", format ? model_format_name(*format) : std::string_view());
  write_text(json, "dtype", status.model == nullptr ? std::string_view() : status.model->spec.dtype);
  write_text(json, "kind", status.model == nullptr ? std::string_view() : model_kind_name(status.model->kind()));
  json.field("origin", record_origin_name(record.origin));
  write_map(json, "settings", record.settings);
  write_strings(json, "pending_settings", status.pending);
  write_map(json, "metadata", record.metadata);
  json.field("pinned", record.pinned);
  write_integer(json, "keep_alive", record.keep_alive);
  json.field("created", record.created);
}

void write_residency(JsonWriter& json, const ModelStatus& status) {
  json.field("state", model_state_name(status.state)).field("removing", status.removing);
  write_error(json, "failure", status.failure);
  json.field("memory_bytes", status.memory_bytes).field("sleep_bytes", status.sleep_bytes);
  json.field("leases", status.leases).field("waiting", status.waiting);
  json.field("queue_place", status.queue_place);
  write_progress(json, status.progress);
  write_seconds(json, "idle_seconds", status.idle);
  write_seconds(json, "keep_alive_left", status.keep_alive_left);
  write_seconds(json, "load_seconds",
                status.load_time > Duration{0} ? std::optional<Duration>(status.load_time) : std::nullopt);
  write_seconds(json, "wake_seconds",
                status.wake_time > Duration{0} ? std::optional<Duration>(status.wake_time) : std::nullopt);
  json.field("sleeps", status.life.sleeps).field("wakes", status.life.wakes);
  json.field("loads", status.loads).key("unloads").begin_object();
  for (size_t i = 0; i < kNumUnloadReasons; ++i) {
    json.field(unload_reason_name(static_cast<UnloadReason>(i)), status.unloads[i]);
  }
  json.end_object();
}

}  // namespace

void write_model(JsonWriter& json, const ModelStatus& status) {
  const ModelRecord& record = status.record;
  json.begin_object().field("id", status.id).field("name", record.id.name).field("version", record.id.version);
  json.field("active", status.active);
  write_text(json, "variant_of", status.variant_of);
  write_strings(json, "aliases", status.aliases);
  write_record(json, status);
  write_integer(json, "last_used", status.last_used > 0 ? std::optional<int64_t>(status.last_used) : std::nullopt);
  json.field("load_count", record.load_count);
  write_residency(json, status);
  json.end_object();
}

void write_operation(JsonWriter& json, const Operation& operation) {
  json.begin_object().field("id", operation.id).field("kind", operation_kind_name(operation.kind));
  json.field("model", operation.model).field("state", operation_state_name(operation.state));
  write_error(json, "error", operation.error);
  json.field("created", operation.created);
  write_integer(json, "ended", operation.ended);
  write_progress(json, operation.progress);
  json.key("result").raw(operation.result.empty() ? "null" : operation.result);
  json.end_object();
}

std::string model_json(const ModelStatus& status) {
  JsonWriter json;
  write_model(json, status);
  return json.take();
}

std::string operation_json(const Operation& operation) {
  JsonWriter json;
  write_operation(json, operation);
  return json.take();
}

std::string name_json(const NameRecord& record, const std::string& active) {
  JsonWriter json;
  json.begin_object().field("name", record.name);
  write_text(json, "active", active);
  write_text(json, "previous", record.previous.value_or(""));
  json.key("policy").begin_object().field("kind", version_policy_name(record.policy.kind));
  write_strings(json, "versions", record.policy.versions);
  json.end_object().end_object();
  return json.take();
}

std::string files_json(const std::vector<FileCheck>& files) {
  JsonWriter json;
  json.begin_object().key("files").begin_array();
  for (const FileCheck& file : files) {
    const char* const state = file.state == FileCheck::State::ok        ? "ok"
                              : file.state == FileCheck::State::changed ? "changed"
                                                                        : "unknown";
    json.begin_object().field("file", file.file).field("bytes", file.bytes).field("state", state).end_object();
  }
  json.end_array().end_object();
  return json.take();
}

std::string plan_json(const ModelPlan& plan) {
  JsonWriter json;
  json.begin_object().field("fits", plan.fits).field("budget_bytes", plan.budget);
  json.field("used_bytes", plan.used_before).field("used_after_bytes", plan.used_after).key("evicted").begin_array();
  for (const std::string& id : plan.evicted) json.string(id);
  json.end_array().key("asleep").begin_array();
  for (const std::string& id : plan.asleep) json.string(id);
  json.end_array().key("models").begin_array();
  for (const ModelPlan::Row& row : plan.rows) {
    json.begin_object().field("id", row.id).field("resident", row.resident).field("fits", !row.refusal.has_value());
    write_text(json, "dtype", row.dtype);
    json.field("bytes", row.bytes).field("kv_bytes_per_token", row.kv_bytes_per_token);
    json.field("context", row.context).field("more_tokens", row.more_tokens).key("load_seconds");
    row.load_time ? json.number(to_seconds(*row.load_time)) : json.null();
    json.key("reason");
    row.refusal ? json.string(row.refusal->message) : json.null();
    json.end_object();
  }
  json.end_array().end_object();
  return json.take();
}

std::string event_frame(const ModelEvent& event) {
  JsonWriter json;
  json.begin_object().field("model", event.model);
  switch (event.kind) {
    case ModelEvent::Kind::state:
      json.field("state", model_state_name(event.state));
      write_text(json, "failure", event.detail);
      break;
    case ModelEvent::Kind::progress:
      json.field("stage", event.stage).field("bytes_done", event.bytes_done).field("bytes_total", event.bytes_total);
      break;
    case ModelEvent::Kind::switched:
      write_text(json, "version", event.detail);
      break;
    case ModelEvent::Kind::alias:
      write_text(json, "target", event.detail);
      break;
    case ModelEvent::Kind::registered:
    case ModelEvent::Kind::updated:
    case ModelEvent::Kind::removed:
      break;
  }
  json.key("time").number(static_cast<double>(event.time_ms) / 1000.0).end_object();
  std::string frame = "id: " + std::to_string(event.sequence);
  frame += std::string("\nevent: ") + model_event_name(event.kind);
  return frame + "\ndata: " + json.take() + "\n\n";
}

}  // namespace inferneo
