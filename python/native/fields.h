// Plain structs as Python classes: keyword arguments, attributes, equality and a readable repr, all from one row for
// each field. Defaults are the struct's own. `__fields__` holds the rows, from which the type stubs are made.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/config/suggest.h"
#include "errors.h"

namespace inferneo::python {

// ---- how a C++ type is written in Python's annotations
template <typename T>
struct PythonType;
template <>
struct PythonType<bool> {
  static std::string name() { return "bool"; }
};
template <>
struct PythonType<std::string> {
  static std::string name() { return "str"; }
};
template <typename T>
requires std::is_integral_v<T>
struct PythonType<T> {
  static std::string name() { return "int"; }
};
template <typename T>
requires std::is_floating_point_v<T>
struct PythonType<T> {
  static std::string name() { return "float"; }
};
template <typename T>
struct PythonType<std::vector<T>> {
  static std::string name() { return "list[" + PythonType<T>::name() + "]"; }
};
template <typename T>
struct PythonType<std::optional<T>> {
  static std::string name() { return PythonType<T>::name() + " | None"; }
};
template <typename K, typename V>
struct PythonType<std::map<K, V>> {
  static std::string name() { return "dict[" + PythonType<K>::name() + ", " + PythonType<V>::name() + "]"; }
};
template <typename A, typename B>
struct PythonType<std::pair<A, B>> {
  static std::string name() { return "tuple[" + PythonType<A>::name() + ", " + PythonType<B>::name() + "]"; }
};

// A float as the shortest decimal that means it: 0.8 and not 0.800000011920929.
double shortest(float value);

template <typename T>
nanobind::object to_python(const T& value) {
  if constexpr (std::is_same_v<T, float>) {
    return nanobind::cast(shortest(value));
  } else if constexpr (std::is_same_v<T, std::optional<float>>) {
    return value ? nanobind::cast(shortest(*value)) : nanobind::none();
  } else {
    return nanobind::cast(value);
  }
}

// TypeError that names the field.
[[noreturn]] void raise_wrong_type(std::string_view what, std::string_view expected, nanobind::handle value);

template <typename T>
class Fields {
 public:
  Fields(nanobind::module_& module, const char* name, const char* doc) : name_(name), class_(module, name, doc) {}

  template <typename M>
  Fields& field(const char* name, M T::*member, const char* doc) {
    return property(
        name, PythonType<M>::name(), doc, [member](const T& self) { return to_python(self.*member); },
        [member, where = name_ + "." + name](T& self, nanobind::handle value) {
          M converted{};
          if (!nanobind::try_cast<M>(value, converted)) raise_wrong_type(where, PythonType<M>::name(), value);
          self.*member = std::move(converted);
        });
  }
  // What is not stored as Python shows it, such as the words of an enumeration.
  Fields& property(const char* name, std::string type, const char* doc, std::function<nanobind::object(const T&)> get,
                   std::function<void(T&, nanobind::handle)> set) {
    class_.def_prop_rw(
        name, [get](const T& self) { return get(self); },
        [set](T& self, const nanobind::object& value) { set(self, value); }, nanobind::arg("value").none(), doc);
    rows_.push_back({name, std::move(type), doc, std::move(get), std::move(set)});
    return *this;
  }
  // Results: attributes can be read, and nobody makes one.
  template <typename M>
  Fields& result(const char* name, M T::*member, const char* doc) {
    auto get = [member](const T& self) { return to_python(self.*member); };
    class_.def_prop_ro(name, get, doc);
    rows_.push_back({name, PythonType<M>::name(), doc, get, {}});
    return *this;
  }

  nanobind::class_<T>& finish(bool can_be_made = true) {
    nanobind::list described;
    for (const Row& row : rows_) described.append(nanobind::make_tuple(row.name, row.type, row.doc));
    class_.attr("__fields__") = described;
    class_.attr("__made_by_users__") = can_be_made;
    const std::string name = name_;
    if (can_be_made) {
      class_.def("__init__", [rows = rows_, name](T* self, const nanobind::kwargs& values) {
        new (self) T();
        fill(*self, rows, name, values);
      });
      // A changed copy, as dataclasses.replace() makes it.
      class_.def(
          "replace",
          [rows = rows_, name](const T& self, const nanobind::kwargs& values) {
            T copy = self;
            fill(copy, rows, name, values);
            return copy;
          },
          "A copy with these fields changed.");
      class_.def(
          "__eq__",
          [rows = rows_](const T& a, nanobind::handle other) {
            T b{};
            if (!nanobind::try_cast<T>(other, b)) return false;
            for (const Row& row : rows) {
              if (!row.get(a).equal(row.get(b))) return false;
            }
            return true;
          },
          nanobind::arg("other").none());
      class_.attr("__hash__") = nanobind::none();
      class_.def("__reduce__", [rows = rows_](const nanobind::object& self) {
        nanobind::dict values;
        for (const Row& row : rows) values[row.name] = self.attr(row.name);
        const nanobind::object make = nanobind::module_::import_("inferneo.errors").attr("_remake");
        return nanobind::make_tuple(make, nanobind::make_tuple(self.type(), values));
      });
    }
    class_.def("__repr__", [rows = rows_, name](const T& self) {
      std::string text = name + "(";
      const T standard{};
      for (const Row& row : rows) {
        const nanobind::object value = row.get(self);
        if (value.equal(row.get(standard))) continue;
        if (text.back() != '(') text += ", ";
        text += std::string(row.name) + "=" + nanobind::repr(value).c_str();
      }
      return text + ")";
    });
    return class_;
  }

 private:
  struct Row {
    const char* name;
    std::string type;
    const char* doc;
    std::function<nanobind::object(const T&)> get;
    std::function<void(T&, nanobind::handle)> set;
  };

  static void fill(T& self, const std::vector<Row>& rows, const std::string& name, const nanobind::kwargs& values) {
    for (const auto& [key, value] : values) {
      const auto text = nanobind::cast<std::string>(key);
      const Row* found = nullptr;
      std::vector<std::string_view> known;
      for (const Row& row : rows) {
        known.emplace_back(row.name);
        if (text == row.name) found = &row;
      }
      if (found == nullptr) {
        raise(make_error(ErrorCode::invalid_argument, name + " has no field '" + text + "'" + did_you_mean(text, known),
                         text));
      }
      found->set(self, value);
    }
  }

  std::string name_;
  nanobind::class_<T> class_;
  std::vector<Row> rows_;
};

}  // namespace inferneo::python
