#include "server/exposition.h"

#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

namespace inferneo {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

void append_escaped(std::string& out, std::string_view text, bool escape_quotes) {
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && escape_quotes) {
      out += "\\\"";
    } else {
      out.push_back(c);
    }
  }
}

// Independent of the locale, as the format demands.
void append_number(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else {
    std::array<char, 32> buffer;
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
    out.append(buffer.data(), end);
  }
}

void append_labels(std::string& out, const Labels& labels, const double* le) {
  if (labels.empty() && le == nullptr) return;
  out.push_back('{');
  bool first = true;
  for (const auto& [name, value] : labels) {
    if (!first) out.push_back(',');
    first = false;
    out += name;
    out += "=\"";
    append_escaped(out, value, true);
    out.push_back('"');
  }
  if (le != nullptr) {
    if (!first) out.push_back(',');
    out += "le=\"";
    append_number(out, *le);
    out.push_back('"');
  }
  out.push_back('}');
}

void append_line(std::string& out, std::string_view name, std::string_view suffix, const Labels& labels,
                 const double* le, double value) {
  out += name;
  out += suffix;
  append_labels(out, labels, le);
  out.push_back(' ');
  append_number(out, value);
  out.push_back('\n');
}

void append_histogram(std::string& out, std::string_view name, const Labels& labels, const Histogram& histogram) {
  uint64_t cumulative = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    cumulative += histogram.counts[i];
    const double bound = i < histogram.bounds.size() ? histogram.bounds[i] : HUGE_VAL;
    append_line(out, name, "_bucket", labels, &bound, static_cast<double>(cumulative));
  }
  append_line(out, name, "_sum", labels, nullptr, histogram.sum);
  append_line(out, name, "_count", labels, nullptr, static_cast<double>(cumulative));
}

bool fits(const MetricSample& sample, const MetricInfo& info) {
  const auto* histogram = std::get_if<Histogram>(&sample.value);
  if (info.type != MetricType::histogram) return histogram == nullptr;
  return histogram != nullptr && histogram->counts.size() == histogram->bounds.size() + 1;
}

std::string_view type_name(MetricType type) {
  switch (type) {
    case MetricType::gauge:
      return "gauge";
    case MetricType::counter:
      return "counter";
    case MetricType::histogram:
      return "histogram";
  }
  return "untyped";
}

}  // namespace

std::string render_metrics(const std::vector<MetricSample>& samples, std::span<const MetricInfo> catalogue) {
  std::map<std::string_view, std::vector<const MetricSample*>> by_name;
  for (const MetricSample& sample : samples) by_name[sample.name].push_back(&sample);

  std::string out;
  for (const MetricInfo& info : catalogue) {
    const std::string_view suffix = info.type == MetricType::counter ? "_total" : "";
    out += "# HELP ";
    out += info.name;
    out += suffix;
    out.push_back(' ');
    append_escaped(out, info.help, false);
    out += "\n# TYPE ";
    out += info.name;
    out += suffix;
    out.push_back(' ');
    out += type_name(info.type);
    out.push_back('\n');
    for (const MetricSample* sample : by_name[info.name]) {
      if (!fits(*sample, info)) continue;
      if (const auto* histogram = std::get_if<Histogram>(&sample->value)) {
        append_histogram(out, info.name, sample->labels, *histogram);
      } else {
        append_line(out, info.name, suffix, sample->labels, nullptr, std::get<double>(sample->value));
      }
    }
  }
  return out;
}

}  // namespace inferneo
