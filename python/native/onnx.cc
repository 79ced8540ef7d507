#include <nanobind/stl/string.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "config.h"
#include "data.h"
#include "inferneo/onnx_converter.h"
#include "owned.h"

namespace nb = nanobind;

namespace inferneo::python {

template <>
struct PythonType<ConvertVerification> {
  static std::string name() { return "ConvertVerification"; }
};

namespace {

using PyConverter = Owned<ONNXConverter>;

// Tells `callback` (None: nobody) how far it is. What it raises ends the conversion, as does a signal such as Ctrl-C.
class Progress {
 public:
  explicit Progress(nb::handle callback) : callback_(callback) {}

  Status tell(const ConvertProgress& progress) {
    const nb::gil_scoped_acquire acquire;
    try {
      if (PyErr_CheckSignals() != 0) nb::raise_python_error();
      if (!callback_.is_none()) callback_(progress.stage, progress.bytes_done, progress.bytes_total);
      return ok_status();
    } catch (nb::python_error& error) {
      raised_.emplace(std::move(error));
      return make_error(ErrorCode::cancelled, "stopped; nothing was kept");
    }
  }
  // With the interpreter.
  void raise_again() {
    if (raised_) throw nb::python_error(std::move(*raised_));
  }

 private:
  nb::handle callback_;  // of the caller, who waits
  std::optional<nb::python_error> raised_;
};

ConvertedModel convert_model(PyConverter& self, const std::string& model, const std::string& output,
                             Precision precision, int block_size, int accuracy_level, OnnxOperators operators,
                             bool half_activations, int32_t max_model_len, bool verify, bool overwrite,
                             const nb::object& on_progress) {
  Progress progress(on_progress);
  const ConvertOptions options = {
      .precision = precision,
      .block_size = block_size,
      .accuracy_level = accuracy_level,
      .operators = operators,
      .half_activations = half_activations,
      .max_model_len = max_model_len,
      .verify = verify,
      .overwrite = overwrite,
      .on_progress = [&progress](const ConvertProgress& now) { return progress.tell(now); }};
  Result<ConvertedModel> done =
      self.shared([&](ONNXConverter& converter) { return converter.convert_model(model, output, options); });
  progress.raise_again();
  return value_of(std::move(done));
}

}  // namespace

void bind_onnx(nb::module_& module) {
  nb::enum_<Precision>(module, "Precision", "Of a converted model's weights.")
      .value("FLOAT32", Precision::Float32)
      .value("FLOAT16", Precision::Float16)
      .value("INT8", Precision::Int8)
      .value("INT4", Precision::Int4);
  nb::enum_<OnnxOperators>(module, "OnnxOperators", "Which operators a converted model's graph is made of.")
      .value("GENAI", OnnxOperators::GenAI)
      .value("STANDARD_21", OnnxOperators::Standard21)
      .value("STANDARD_23", OnnxOperators::Standard23);

  using V = ConvertVerification;
  Fields<V>(module, "ConvertVerification", "How far a converted model is from the native one.")
      .result("done", &V::done, "Whether they were compared.")
      .result("reason", &V::reason, "Why not.")
      .result("largest_difference", &V::largest_difference, "Of logits, in standard deviations of a row of them.")
      .result("typical_difference", &V::typical_difference, "The root of the mean square.")
      .result("bound", &V::bound, "Of the typical one.")
      .result("tokens", &V::tokens, "That were compared.")
      .result("agreeing", &V::agreeing, "Of them: with the same most probable next token.")
      .finish(false);

  using C = ConvertedModel;
  Fields<C>(module, "ConvertedModel", "What a conversion has written.")
      .result("path", &C::path, "The directory.")
      .result("graph_bytes", &C::graph_bytes, "Of model.onnx.")
      .result("data_bytes", &C::data_bytes, "Of model.onnx.data.")
      .result("source_bytes", &C::source_bytes, "Of the weights that it was made from.")
      .result("max_model_len", &C::max_model_len, "Longest sequence that the graph serves.")
      .result("seconds", &C::seconds, "That it took.")
      .result("verification", &C::verification, "How far it is from the native model.")
      .finish(false);

  nb::class_<PyConverter>(module, "Converter")
      .def("__init__",
           [](PyConverter* self, const Config& config) {
             new (self) PyConverter(std::make_unique<ONNXConverter>(config.value));
           })
      .def("convert_model", &convert_model, nb::arg("model"), nb::arg("output"), nb::arg("precision"),
           nb::arg("block_size"), nb::arg("accuracy_level"), nb::arg("operators"), nb::arg("half_activations"),
           nb::arg("max_model_len"), nb::arg("verify"), nb::arg("overwrite"), nb::arg("on_progress").none())
      .def("end", &PyConverter::end);
}

}  // namespace inferneo::python
