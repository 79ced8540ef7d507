#include "server/exposition.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <unordered_map>

namespace inferneo {
namespace {

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

void append_count(std::string& out, uint64_t value, char end = '\0') {
  std::array<char, 24> buffer;
  char* last = std::to_chars(buffer.data(), buffer.data() + buffer.size() - 1, value).ptr;
  if (end != '\0') *last++ = end;
  out.append(buffer.data(), last);
}

// Independent of the locale, as the format demands.
void append_number(std::string& out, double value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53: whole numbers below are written as such
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else if (value >= 0 && value < kExact && value == std::floor(value)) {
    append_count(out, static_cast<uint64_t>(value));
  } else {
    std::array<char, 32> buffer;
    out.append(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr);
  }
}

// Writes one sample after the other. What repeats from line to line is made once: the text of the labels that samples
// share, of the bounds that histograms share, and the beginning of a histogram's lines.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  void write(std::string_view name, std::string_view suffix, const MetricSample& sample) {
    const std::string& labels = text_of(sample.labels);
    if (const auto* histogram = std::get_if<Histogram>(&sample.value)) {
      write_histogram(name, labels, *histogram);
    } else {
      begin_line(name, suffix, labels);
      append_number(out_, std::get<double>(sample.value));
      out_.push_back('\n');
    }
  }

 private:
  void begin_line(std::string_view name, std::string_view suffix, const std::string& labels) {
    out_ += name;
    out_ += suffix;
    out_ += labels;
    out_ += labels.empty() ? " " : "} ";
  }

  void write_histogram(std::string_view name, const std::string& labels, const Histogram& histogram) {
    begin_.assign(name).append("_bucket").append(labels).append(labels.empty() ? "{le=\"" : ",le=\"");
    const std::vector<std::string>& bounds = texts_of(histogram.bounds);
    uint64_t cumulative = 0;
    for (size_t i = 0; i < bounds.size(); ++i) {
      cumulative += histogram.counts[i];
      out_ += begin_;
      out_ += bounds[i];
      append_count(out_, cumulative, '\n');
    }
    begin_line(name, "_sum", labels);
    append_number(out_, histogram.sum);
    out_.push_back('\n');
    begin_line(name, "_count", labels);
    append_count(out_, cumulative, '\n');
  }

  // `{a="b",c="d"`, without its end; empty: none.
  const std::string& text_of(const MetricLabels& labels) {
    std::string& text = label_texts_[labels.list()];
    if (!text.empty()) return text;
    for (const auto& [label, value] : labels) {
      text += text.empty() ? "{" : ",";
      text += label;
      text += "=\"";
      append_escaped(text, value, true);
      text.push_back('"');
    }
    return text;
  }

  // `0.5"} ` and so on, +Inf included. Bounds live as long as the program, so that their address says which.
  const std::vector<std::string>& texts_of(std::span<const double> bounds) {
    std::vector<std::string>& texts = bound_texts_[bounds.data()];
    if (!texts.empty()) return texts;
    for (size_t i = 0; i <= bounds.size(); ++i) {
      std::string& text = texts.emplace_back();
      append_number(text, i < bounds.size() ? bounds[i] : HUGE_VAL);
      text += "\"} ";
    }
    return texts;
  }

  std::string& out_;
  std::string begin_;
  std::unordered_map<const void*, std::string> label_texts_;
  std::unordered_map<const void*, std::vector<std::string>> bound_texts_;
};

bool fits(const MetricSample& sample, const MetricInfo& info) {
  const auto* histogram = std::get_if<Histogram>(&sample.value);
  if (info.type != MetricType::histogram) return histogram == nullptr;
  return histogram != nullptr && !histogram->bounds.empty() && histogram->bounds.size() < Histogram::kMaxBuckets;
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

void append_head(std::string& out, const MetricInfo& info, std::string_view suffix) {
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
}

// More than the text will take, from the samples that there are: one allocation instead of twenty, each of which
// copies.
size_t size_hint(const std::vector<MetricSample>& samples) {
  constexpr size_t kLine = 48;  // suffix, bound, value
  size_t bytes = 0;
  for (const MetricSample& sample : samples) {
    size_t line = sample.name.size() + kLine;
    for (const auto& [label, value] : sample.labels) line += label.size() + value.size() + 4;
    const auto* histogram = std::get_if<Histogram>(&sample.value);
    bytes += line * (histogram == nullptr ? 1 : histogram->bounds.size() + 3);
  }
  return bytes;
}

}  // namespace

std::string render_metrics(const std::vector<MetricSample>& samples, std::span<const MetricInfo> catalogue) {
  std::unordered_map<std::string_view, size_t> rows;
  size_t bytes = 0;
  for (const MetricInfo& info : catalogue) {
    rows.emplace(info.name, rows.size());
    bytes += 2 * info.name.size() + info.help.size() + 64;
  }
  std::vector<std::vector<const MetricSample*>> by_row(catalogue.size());
  for (const MetricSample& sample : samples) {
    if (const auto row = rows.find(sample.name); row != rows.end()) by_row[row->second].push_back(&sample);
  }
  std::string out;
  out.reserve(bytes + size_hint(samples));
  Writer writer(out);
  for (size_t row = 0; row < catalogue.size(); ++row) {
    const MetricInfo& info = catalogue[row];
    const std::string_view suffix = info.type == MetricType::counter ? "_total" : "";
    append_head(out, info, suffix);
    for (const MetricSample* sample : by_row[row]) {
      if (fits(*sample, info)) writer.write(info.name, suffix, *sample);
    }
  }
  return out;
}

}  // namespace inferneo
