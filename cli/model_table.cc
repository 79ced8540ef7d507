#include "cli/model_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/terminal.h"
#include "cli/units.h"
#include "manager/registry_records.h"

namespace inferneo {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxText = 400;
constexpr size_t kGap = 2;
constexpr size_t kShortestId = 12;

std::string one_line(std::string_view text) {
  std::string line = without_control_characters(text.substr(0, kMaxText));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

// Reads fields and remembers the first that is wrong, so that a reader is one line a field.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* find(const char* name) {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  void text(const char* name, std::string& into) {
    const Json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return wrong(name, "a text");
    into = one_line(value->get_ref<const std::string&>());
  }
  void flag(const char* name, bool& into) {
    const Json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return wrong(name, "true or false");
    into = value->get<bool>();
  }
  template <typename T>
  void number(const char* name, T& into) {
    const Json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_number()) return wrong(name, "a number");
    const auto given = value->get<double>();
    constexpr double kMost = 9e18;  // what 64 bits hold, with room for the sign
    const bool whole = std::is_same_v<T, double> || std::floor(given) == given;
    const bool fits = std::abs(given) < kMost && (given >= 0.0 || !std::is_same_v<T, uint64_t>);
    if (!std::isfinite(given) || !whole || !fits) return wrong(name, "a sensible number");
    into = value->is_number_float() ? static_cast<T>(given) : value->get<T>();
  }
  template <typename T>
  void number(const char* name, std::optional<T>& into) {
    if (find(name) == nullptr) return;
    into.emplace();
    number(name, *into);
  }
  void texts(const char* name, std::vector<std::string>& into) {
    const Json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_array()) return wrong(name, "a list");
    for (const Json& entry : *value) {
      if (!entry.is_string()) return wrong(name, "a list of texts");
      into.push_back(one_line(entry.get_ref<const std::string&>()));
    }
  }
  void texts(const char* name, std::map<std::string, std::string>& into) {
    const Json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_object()) return wrong(name, "an object");
    for (const auto& [key, entry] : value->items()) {
      if (!entry.is_string()) return wrong(name, "an object of texts");
      into[one_line(key)] = one_line(entry.get_ref<const std::string&>());
    }
  }
  void wrong(const char* name, const char* expected) {
    if (status_.ok()) {
      status_ = make_error(ErrorCode::malformed,
                           fmt::format("the server describes a model whose '{}' is not {}", name, expected));
    }
  }
  const Status& status() const { return status_; }

 private:
  const Json& object_;
  Status status_;
};

struct Column {
  std::string_view title;
  bool right;    // numbers
  int first_go;  // columns go in this order where there is no room; 0: never
};
enum ColumnIndex : size_t { kId, kFormat, kDtype, kState, kMemory, kLastUsed, kLoadTime, kKeepAlive, kNumColumns };
constexpr std::array<Column, kNumColumns> kColumns = {{{"ID", false, 0},
                                                       {"FORMAT", false, 1},
                                                       {"DTYPE", false, 1},
                                                       {"STATE", false, 0},
                                                       {"MEMORY", true, 5},
                                                       {"LAST USED", false, 3},
                                                       {"LOAD TIME", true, 2},
                                                       {"KEEP-ALIVE LEFT", true, 4}}};
using Cells = std::array<std::string, kNumColumns>;

// Columns of a screen; whatever is no ASCII counts as one each.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// The middle gives way: names differ at their end.
std::string shortened(const std::string& text, size_t width) {
  if (width_of(text) <= width || text.size() != width_of(text) || width < 4) return text;
  const size_t tail = (width - 2) / 2 + 1;
  return text.substr(0, width - 2 - tail) + ".." + text.substr(text.size() - tail);
}

std::string state_text(const ModelView& model) {
  std::string text = model.state;
  if (model.state == "loading" && model.bytes_total > 0) {
    const double share = static_cast<double>(model.bytes_done) / static_cast<double>(model.bytes_total);
    text += fmt::format(" {:.0f} %", 100.0 * std::min(share, 1.0));
  } else if (model.queue_place > 0) {
    text = fmt::format("waiting ({})", model.queue_place);
  }
  if (model.pinned) text += ", pinned";
  if (model.removing) text += ", removing";
  return text;
}

std::string keep_alive_text(const ModelView& model) {
  if (model.state != "ready") return "-";
  if (model.keep_alive_left) return duration_text(std::max(0.0, std::floor(*model.keep_alive_left)));
  return model.leases > 0 ? "in use" : "for ever";
}

Cells cells_of(const ModelView& model, const TableOptions& options) {
  Cells cells;
  cells[kId] = (model.active ? "* " : "  ") + model.id;
  cells[kFormat] = model.format.empty() ? "-" : model.format;
  cells[kDtype] = model.dtype.empty() ? "-" : model.dtype;
  cells[kState] = state_text(model);
  const uint64_t bytes = model.state == "sleeping" ? model.sleep_bytes : model.memory_bytes;
  cells[kMemory] = bytes > 0 ? size_text(bytes) : "-";
  cells[kLastUsed] = model.last_used ? age_text(options.now - *model.last_used) : "never";
  cells[kLoadTime] = model.load_seconds ? duration_text(*model.load_seconds) : "-";
  cells[kKeepAlive] = keep_alive_text(model);
  return cells;
}

// Which columns are shown, and how wide each is.
struct Layout {
  std::array<size_t, kNumColumns> widths{};
  std::array<bool, kNumColumns> shown{};

  size_t total() const {
    size_t sum = 0;
    for (size_t i = 0; i < kNumColumns; ++i) {
      if (shown[i]) sum += widths[i] + (sum > 0 ? kGap : 0);
    }
    return sum;
  }
};

Layout layout_of(const std::vector<Cells>& rows, int width) {
  Layout layout;
  layout.shown.fill(true);
  for (const Cells& row : rows) {
    for (size_t i = 0; i < kNumColumns; ++i) layout.widths[i] = std::max(layout.widths[i], width_of(row[i]));
  }
  if (width <= 0) return layout;
  const auto room = static_cast<size_t>(width);
  for (int go = 1; layout.total() > room && go < static_cast<int>(kNumColumns); ++go) {
    for (size_t i = 0; i < kNumColumns; ++i) {
      if (kColumns[i].first_go == go) layout.shown[i] = false;
    }
  }
  if (layout.total() > room) {
    const size_t others = layout.total() - layout.widths[kId];
    layout.widths[kId] = std::max(kShortestId, room - std::min(room, others));
  }
  return layout;
}

void append_cells(std::string& text, const Cells& row, const Layout& layout) {
  std::string line;
  for (size_t i = 0; i < kNumColumns; ++i) {
    if (!layout.shown[i]) continue;
    const std::string cell = i == kId ? shortened(row[i], layout.widths[i]) : row[i];
    const std::string blanks(layout.widths[i] - std::min(layout.widths[i], width_of(cell)), ' ');
    if (!line.empty()) line.append(kGap, ' ');
    line += kColumns[i].right ? blanks + cell : cell + blanks;
  }
  line.resize(line.find_last_not_of(' ') + 1);
  text += line + "\n";
}

// "    label: text", broken at blanks where the screen ends.
void append_note(std::string& text, std::string_view label, std::string_view note, int width) {
  constexpr std::string_view kIndent = "    ";
  std::string line = std::string(kIndent) + std::string(label);
  const size_t room = width <= 0 ? SIZE_MAX : std::max<size_t>(static_cast<size_t>(width), 24) - kIndent.size();
  std::string rest = line.substr(kIndent.size()) + std::string(note);
  while (rest.size() > room) {
    size_t cut = rest.rfind(' ', room);
    if (cut == std::string::npos || cut == 0) cut = std::min(room, rest.size());
    text += std::string(kIndent) + rest.substr(0, cut) + "\n";
    rest.erase(0, std::min(rest.find_first_not_of(' ', cut), rest.size()));
  }
  if (!rest.empty()) text += std::string(kIndent) + rest + "\n";
}

void append_details(std::string& text, const ModelView& model, int width) {
  const auto list = [](const std::map<std::string, std::string>& values) {
    std::string all;
    for (const auto& [key, value] : values) all += (all.empty() ? "" : ", ") + key + "=" + value;
    return all;
  };
  append_note(text, "source: ", model.source + (model.revision.empty() ? "" : "@" + model.revision), width);
  std::string aliases;
  for (const std::string& alias : model.aliases) aliases += (aliases.empty() ? "" : ", ") + alias;
  if (!aliases.empty()) append_note(text, "aliases: ", aliases, width);
  if (model.keep_alive) {
    const std::string keep =
        *model.keep_alive == kKeepForever ? "for ever" : duration_text(static_cast<double>(*model.keep_alive));
    append_note(text, "keep-alive: ", keep, width);
  }
  if (!model.settings.empty()) append_note(text, "settings: ", list(model.settings), width);
  if (!model.metadata.empty()) append_note(text, "metadata: ", list(model.metadata), width);
  if (model.origin == "config") append_note(text, "from the configuration file or the command line", "", width);
}

}  // namespace

Result<ModelView> view_of_model(const Json& model) {
  if (!model.is_object()) return make_error(ErrorCode::malformed, "the server describes a model that is no object");
  ModelView view;
  Fields fields(model);
  fields.text("id", view.id);
  fields.text("state", view.state);
  fields.text("format", view.format);
  fields.text("dtype", view.dtype);
  fields.text("source", view.source);
  fields.text("revision", view.revision);
  fields.text("origin", view.origin);
  fields.texts("aliases", view.aliases);
  fields.texts("settings", view.settings);
  fields.texts("metadata", view.metadata);
  fields.flag("active", view.active);
  fields.flag("pinned", view.pinned);
  fields.flag("removing", view.removing);
  fields.number("memory_bytes", view.memory_bytes);
  fields.number("sleep_bytes", view.sleep_bytes);
  fields.number("leases", view.leases);
  fields.number("queue_place", view.queue_place);
  fields.number("last_used", view.last_used);
  fields.number("keep_alive", view.keep_alive);
  fields.number("keep_alive_left", view.keep_alive_left);
  fields.number("load_seconds", view.load_seconds);
  for (const char* name : {"failure", "progress"}) {
    const Json* const part = fields.find(name);
    if (part != nullptr && !part->is_object()) fields.wrong(name, "an object");
  }
  if (view.id.empty()) fields.wrong("id", "there");
  if (view.state.empty()) fields.wrong("state", "there");
  RETURN_IF_ERROR(fields.status());
  if (const Json* const failure = fields.find("failure")) {
    Fields of_failure(*failure);
    of_failure.text("message", view.failure);
    RETURN_IF_ERROR(of_failure.status());
  }
  if (const Json* const progress = fields.find("progress")) {
    Fields of_progress(*progress);
    of_progress.text("stage", view.stage);
    of_progress.number("bytes_done", view.bytes_done);
    of_progress.number("bytes_total", view.bytes_total);
    RETURN_IF_ERROR(of_progress.status());
  }
  return view;
}

Result<std::vector<ModelView>> views_of_list(const Json& answer) {
  const auto data = answer.is_object() ? answer.find("data") : answer.end();
  if (data == answer.end() || !data->is_array()) {
    return make_error(ErrorCode::malformed, "the server's list of models has no 'data'; is it an Inferneo server?");
  }
  std::vector<ModelView> models;
  for (const Json& model : *data) {
    ASSIGN_OR_RETURN(models.emplace_back(), view_of_model(model));
  }
  return models;
}

std::string model_table(const std::vector<ModelView>& models, const TableOptions& options) {
  std::vector<Cells> rows(1);
  for (size_t i = 0; i < kNumColumns; ++i) rows[0][i] = kColumns[i].title;
  rows[0][kId] = "  ID";
  for (const ModelView& model : models) rows.push_back(cells_of(model, options));
  const Layout layout = layout_of(rows, options.width);
  std::string text;
  append_cells(text, rows[0], layout);
  for (size_t i = 0; i < models.size(); ++i) {
    append_cells(text, rows[i + 1], layout);
    if (!models[i].failure.empty()) append_note(text, "failed: ", models[i].failure, options.width);
    if (options.verbose) append_details(text, models[i], options.width);
  }
  return text;
}

std::string memory_line(const Json& answer) {
  const auto memory = answer.is_object() ? answer.find("memory") : answer.end();
  if (memory == answer.end() || !memory->is_object()) return {};
  uint64_t used = 0, budget = 0;
  Fields fields(*memory);
  fields.number("used_bytes", used);
  fields.number("budget_bytes", budget);
  if (!fields.status().ok() || budget == 0) return {};
  return fmt::format("{} of {} in use", used == 0 ? "nothing" : size_text(used), size_text(budget));
}

}  // namespace inferneo
