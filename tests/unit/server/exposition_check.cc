#include "exposition_check.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <regex>
#include <set>

namespace inferneo {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

struct Series {  // of one histogram, without `le`
  double last_bound = -HUGE_VAL;
  double last_count = 0.0;
  std::optional<double> infinite, sum, count;
};

class Check {
 public:
  std::vector<std::string> faults;

  void line(std::string_view text) {
    current_ = text;
    if (text.starts_with("# HELP ")) return help(text.substr(7));
    if (text.starts_with("# TYPE ")) return type(text.substr(7));
    if (text.starts_with("#")) return fault("a comment that is neither HELP nor TYPE");
    sample(text);
  }

  void end() {
    for (const auto& [key, series] : histograms_) {
      current_ = key;
      if (!series.infinite) fault("no bucket +Inf");
      if (!series.sum) fault("no _sum");
      if (!series.count || series.count != series.infinite) fault("_count is not the bucket +Inf");
    }
  }

 private:
  void fault(const std::string& what) { faults.push_back(what + ": " + std::string(current_)); }

  void help(std::string_view text) {
    const std::string name(text.substr(0, text.find(' ')));
    if (!families_.insert(name).second) fault("a second HELP");
    if (text.size() <= name.size() + 1) fault("an empty HELP");
    family_ = name;
    type_.clear();
    label_names_.reset();
  }

  void type(std::string_view text) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.substr(0, space) != family_) return fault("TYPE without its HELP");
    if (!type_.empty()) return fault("a second TYPE");
    type_ = text.substr(space + 1);
    if (type_ != "gauge" && type_ != "counter" && type_ != "histogram") fault("an unknown type");
    if (type_ == "counter" && !family_.ends_with("_total")) fault("a counter without _total");
  }

  // {a="b",c="d"}; what follows it is left in `text`.
  std::optional<Labels> labels(std::string_view& text) {
    Labels found;
    if (!text.starts_with('{')) return found;
    text.remove_prefix(1);
    static const std::regex kName("[a-zA-Z_][a-zA-Z0-9_]*");
    while (true) {
      const size_t equals = text.find("=\"");
      if (equals == std::string_view::npos) return std::nullopt;
      std::string name(text.substr(0, equals));
      if (!std::regex_match(name, kName)) return std::nullopt;
      text.remove_prefix(equals + 2);
      std::string value;
      while (!text.empty() && text.front() != '"') {
        if (text.front() == '\\') {
          if (text.size() < 2 || std::string_view("\\\"n").find(text[1]) == std::string_view::npos) return std::nullopt;
          value.push_back(text[0]);
          text.remove_prefix(1);
        }
        value.push_back(text.front());
        text.remove_prefix(1);
      }
      if (text.empty()) return std::nullopt;
      text.remove_prefix(1);
      found.emplace_back(std::move(name), std::move(value));
      if (text.starts_with('}')) break;
      if (!text.starts_with(',')) return std::nullopt;
      text.remove_prefix(1);
    }
    text.remove_prefix(1);
    return found;
  }

  void sample(std::string_view text) {
    static const std::regex kName("[a-zA-Z_:][a-zA-Z0-9_:]*");
    const std::string name(text.substr(0, text.find_first_of("{ ")));
    if (!std::regex_match(name, kName)) return fault("a bad name");
    text.remove_prefix(name.size());
    std::optional<Labels> found = labels(text);
    if (!found) return fault("bad labels");
    if (!text.starts_with(' ') || text.find(' ', 1) != std::string_view::npos) return fault("no value, or a timestamp");
    const std::string number(text.substr(1));
    char* rest = nullptr;
    const double value = number == "+Inf" ? HUGE_VAL : std::strtod(number.c_str(), &rest);
    if (number.empty() || (rest != nullptr && *rest != '\0')) return fault("not a number");
    if (!seen_.insert(std::string(current_.substr(0, current_.size() - text.size()))).second) fault("the series twice");
    if (type_ == "histogram") return histogram(name, std::move(*found), value);
    if (name != family_) return fault("a sample outside its family");
    if (type_ == "counter" && value < 0) fault("a negative counter");
    same_labels(*found);
  }

  void same_labels(const Labels& labels) {
    std::string names;
    std::set<std::string> distinct;
    for (const auto& [name, value] : labels) {
      names += name + ",";
      if (!distinct.insert(name).second) fault("a label twice");
    }
    if (label_names_.value_or(names) != names) fault("other labels than the family's");
    label_names_ = names;
  }

  void histogram(const std::string& name, Labels labels, double value) {
    const std::string part = name.starts_with(family_) ? name.substr(family_.size()) : "";
    std::string bound;
    if (part == "_bucket") {
      if (labels.empty() || labels.back().first != "le") return fault("a bucket without le");
      bound = labels.back().second;
      labels.pop_back();
    }
    same_labels(labels);
    std::string key = family_;
    for (const auto& [label, text] : labels) key += "|" + label + "=" + text;
    Series& series = histograms_[key];
    if (part == "_sum") {
      series.sum = value;
    } else if (part == "_count") {
      series.count = value;
    } else if (part == "_bucket") {
      const double at = bound == "+Inf" ? HUGE_VAL : std::strtod(bound.c_str(), nullptr);
      if (at <= series.last_bound) fault("bounds that do not rise");
      if (value < series.last_count) fault("buckets that fall");
      series.last_bound = at;
      series.last_count = value;
      if (bound == "+Inf") series.infinite = value;
    } else {
      fault("a sample outside its family");
    }
  }

  std::string_view current_;
  std::string family_, type_;
  std::optional<std::string> label_names_;
  std::set<std::string> families_, seen_;
  std::map<std::string, Series> histograms_;
};

}  // namespace

std::vector<std::string> exposition_faults(std::string_view text) {
  Check check;
  if (text.empty() || text.back() != '\n') check.faults.emplace_back("the last line has no end");
  while (!text.empty()) {
    const size_t end = text.find('\n');
    check.line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  check.end();
  return std::move(check.faults);
}

}  // namespace inferneo
