// Plain structs as Python classes: keyword arguments, attributes, equality, copies and a readable repr, all from one
// row for each field. Defaults are the struct's own. `__fields__` holds the rows, `__defaults__` the values: the type
// stubs and the reference are made from them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
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
// InvalidArgumentError with the range, of an int that is too small or too large for the field.
[[noreturn]] void raise_out_of_range(std::string_view what, const std::string& range, nanobind::handle value);
// Whether a value says anything: not None, not False, no empty list.
bool says_something(nanobind::handle value);
// An inspect.Signature of keyword arguments: (name, type, default) of each.
nanobind::object signature_of(const nanobind::list& parameters);

// The integers that a field takes, or empty where it takes none.
template <typename T>
struct IntegerRange {
  static std::string text() { return {}; }
};
template <typename T>
requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) struct IntegerRange<T> {
  static std::string text() {
    return std::to_string(std::numeric_limits<T>::min()) + " to " + std::to_string(std::numeric_limits<T>::max());
  }
};
template <typename T>
struct IntegerRange<std::optional<T>> : IntegerRange<T> {};

template <typename M>
M from_python(nanobind::handle value, const std::string& where) {
  M converted{};
  if (nanobind::try_cast<M>(value, converted)) return converted;
  const std::string range = IntegerRange<M>::text();
  if (!range.empty() && PyLong_Check(value.ptr())) raise_out_of_range(where, range, value);
  raise_wrong_type(where, PythonType<M>::name(), value);
}

template <typename T>
class Fields {
 public:
  Fields(nanobind::module_& module, const char* name, const char* doc) : name_(name), class_(module, name, doc) {}

  template <typename M>
  Fields& field(const char* name, M T::*member, const char* doc) {
    return property(
        name, PythonType<M>::name(), doc, [member](const T& self) { return to_python(self.*member); },
        [member, where = name_ + "." + name](T& self, nanobind::handle value) {
          self.*member = from_python<M>(value, where);
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
  // Of the fields that have been declared so far, these: one call may set one of them.
  Fields& one_of(std::vector<std::string> names) {
    one_of_ = std::move(names);
    return *this;
  }
  // Results: attributes can be read; only a copy or a pickle makes one.
  template <typename M>
  Fields& result(const char* name, M T::*member, const char* doc) {
    auto get = [member](const T& self) { return to_python(self.*member); };
    class_.def_prop_ro(name, get, doc);
    rows_.push_back(
        {name, PythonType<M>::name(), doc, get, [member, where = name_ + "." + name](T& self, nanobind::handle value) {
           self.*member = from_python<M>(value, where);
         }});
    return *this;
  }
  // What copies take along and comparisons look at, without an attribute made here.
  Fields& carried(const char* name, std::function<nanobind::object(const T&)> get,
                  std::function<void(T&, nanobind::handle)> set) {
    carried_.push_back({name, {}, "", std::move(get), std::move(set)});
    return *this;
  }

  // Sets what a call gives as keyword arguments; errors as of such a call.
  std::function<void(T&, const nanobind::kwargs&)> filler() const {
    return
        [table = Table(name_, rows_, one_of_)](T& self, const nanobind::kwargs& values) { fill(self, table, values); };
  }

  nanobind::class_<T>& finish(bool can_be_made = true) {
    describe();
    class_.attr("__made_by_users__") = can_be_made;
    if (can_be_made) {
      add_making();
    } else {
      class_.attr("__defaults__") = nanobind::dict();
    }
    add_copying(can_be_made);
    class_.def("__repr__", [rows = rows_, name = name_](const T& self) {
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

  using Rows = std::vector<Row>;

  // What a call with keyword arguments looks through. Their names are interned, as those in Python's code are: a
  // request is made after the model has had the caches, and a field is found by its pointer without reading much.
  struct Table {
    std::string name;
    Rows rows;
    std::vector<std::string> one_of;
    std::vector<PyObject*> keys = {};  // of the rows; never released
    std::vector<bool> exclusive = {};  // the row is one of `one_of`

    Table(std::string table_name, Rows table_rows, std::vector<std::string> exclusive_names)
        : name(std::move(table_name)), rows(std::move(table_rows)), one_of(std::move(exclusive_names)) {
      for (const Row& row : rows) {
        keys.push_back(PyUnicode_InternFromString(row.name));
        exclusive.push_back(std::find(one_of.begin(), one_of.end(), row.name) != one_of.end());
      }
    }
    // The row's index.
    size_t place_of(nanobind::handle key) const {
      const auto found = std::find(keys.begin(), keys.end(), key.ptr());
      if (found != keys.end()) return static_cast<size_t>(found - keys.begin());
      return place_named(nanobind::cast<std::string>(key));
    }
    size_t place_named(const std::string& field) const {
      std::vector<std::string_view> known;
      for (const Row& row : rows) {
        if (field == row.name) return known.size();
        known.emplace_back(row.name);
      }
      raise(make_error(ErrorCode::invalid_argument, name + " has no field '" + field + "'" + did_you_mean(field, known),
                       field));
    }
  };

  void describe() {
    nanobind::list described;
    for (const Row& row : rows_) described.append(nanobind::make_tuple(row.name, row.type, row.doc));
    class_.attr("__fields__") = described;
  }

  void add_making() {
    nanobind::dict defaults;
    nanobind::list parameters;
    const T standard{};
    for (const Row& row : rows_) {
      defaults[row.name] = row.get(standard);
      parameters.append(nanobind::make_tuple(row.name, row.type, row.get(standard)));
    }
    class_.attr("__defaults__") = defaults;
    class_.attr("__signature__") = signature_of(parameters);
    class_.def("__init__", [table = Table(name_, rows_, one_of_)](T* self, const nanobind::kwargs& values) {
      T made{};
      fill(made, table, values);
      new (self) T(std::move(made));
    });
    // A changed copy, as dataclasses.replace() makes it.
    class_.def(
        "replace",
        [table = Table(name_, rows_, one_of_)](const T& self, const nanobind::kwargs& values) {
          T copy = self;
          fill(copy, table, values);
          return copy;
        },
        "A copy with these fields changed.");
  }

  void add_copying(bool can_be_made) {
    Rows all = rows_;
    all.insert(all.end(), carried_.begin(), carried_.end());
    class_.def(
        "__eq__",
        [all](const T& a, nanobind::handle other) {
          if (!nanobind::isinstance<T>(other)) return false;
          const T& b = nanobind::cast<const T&>(other);
          for (const Row& row : all) {
            if (!row.get(a).equal(row.get(b))) return false;
          }
          return true;
        },
        nanobind::arg("other").none());
    class_.attr("__hash__") = nanobind::none();
    if (!can_be_made) {
      class_.def_static("_of", [table = Table(name_, all, {})](const nanobind::kwargs& values) {
        T made{};
        fill(made, table, values);
        return made;
      });
    }
    class_.def("__reduce__", [all, can_be_made](const nanobind::object& self) {
      nanobind::dict values;
      const T& object = nanobind::cast<const T&>(self);
      for (const Row& row : all) values[row.name] = row.get(object);
      const char* maker = can_be_made ? "_remake" : "_remake_result";
      const nanobind::object make = nanobind::module_::import_("inferneo.errors").attr(maker);
      return nanobind::make_tuple(make, nanobind::make_tuple(self.type(), values));
    });
  }

  // Two of one_of in one call, or one beside another that the copied object has and the call does not take away.
  static void check_one_of(const T& self, const Table& table, const nanobind::kwargs& values) {
    const std::string* chosen = nullptr;
    const std::string* other = nullptr;
    for (const std::string& field : table.one_of) {
      if (!values.contains(field.c_str()) || !says_something(values[field.c_str()])) continue;
      (chosen == nullptr ? chosen : other) = &field;
    }
    if (chosen == nullptr) return;
    for (const std::string& field : table.one_of) {
      if (other != nullptr || field == *chosen || values.contains(field.c_str())) continue;
      if (says_something(table.rows[table.place_named(field)].get(self))) other = &field;
    }
    if (other == nullptr) return;
    raise(make_error(ErrorCode::invalid_argument,
                     *chosen + " and " + *other + " are two constraints for one text; give one of them", *other));
  }

  static void fill(T& self, const Table& table, const nanobind::kwargs& values) {
    bool checked = false;
    for (const auto& [key, value] : values) {
      const size_t place = table.place_of(key);
      if (table.exclusive[place] && !std::exchange(checked, true)) check_one_of(self, table, values);
      table.rows[place].set(self, value);
    }
  }

  std::string name_;
  nanobind::class_<T> class_;
  Rows rows_;
  Rows carried_;
  std::vector<std::string> one_of_;
};

}  // namespace inferneo::python
