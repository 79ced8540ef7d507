#include "cli/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace inferneo {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string rate_text(double value) { return fmt::format("{:.{}f}", value, value < 100.0 ? 1 : 0); }
std::string range_text(const Spread& spread) {
  return fmt::format("{}-{}", rate_text(spread.min), rate_text(spread.max));
}
std::string share_text(const std::optional<Spread>& share) {
  return share && share->median > 0.0 ? fmt::format("{:.0f} %", share->median * 100.0) : "-";
}

OrderedJson spread_json(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

std::string text_of(const OrderedJson& json) {
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

nlohmann::ordered_json peaks_json(const kernels::MachinePeaks& peaks) {
  return {{"threads", peaks.threads},
          {"isa", std::string(peaks.isa)},
          {"f32_flops", peaks.f32_flops},
          {"bf16_flops", peaks.bf16_flops},
          {"int8_ops", peaks.int8_ops},
          {"read_bytes_per_second", peaks.read_bytes_per_second},
          {"read_buffer_bytes", peaks.read_buffer_bytes}};
}

std::string machine_lines(const kernels::MachinePeaks& peaks) {
  std::string text =
      fmt::format("machine   {} {}, {}\n", peaks.threads, peaks.threads == 1 ? "thread" : "threads", peaks.isa);
  text += fmt::format("peaks     f32 {:.1f} GFLOP/s, bf16 {:.1f} GFLOP/s, int8 {:.1f} GOP/s\n", peaks.f32_flops / 1e9,
                      peaks.bf16_flops / 1e9, peaks.int8_ops / 1e9);
  text += fmt::format("memory    {:.1f} GB/s read, over a buffer of {:.0f} MiB\n", peaks.read_bytes_per_second / 1e9,
                      static_cast<double>(peaks.read_buffer_bytes) / (1024.0 * 1024.0));
  return text;
}

std::string bench_table_head(const BenchReport& report) {
  std::string text;
  if (report.peaks) text += machine_lines(*report.peaks);
  text += fmt::format("model     {}, loaded in {:.2f} s\n", report.model, report.load_seconds);
  if (report.facts) {
    text += fmt::format("weights   {:.1f} M parameters in {}; a decode step reads {:.1f} MB\n",
                        report.facts->parameters / 1e6, report.facts->dtype, report.facts->weight_bytes_read / 1e6);
  }
  text += fmt::format("\ntokens/s, median and range of {} rounds\n\n", report.rounds);
  text += fmt::format("{:>5} {:>6} {:>5} {:>9} {:>13} {:>7} {:>8} {:>13} {:>5}\n", "input", "output", "batch",
                      "prefill", "range", "of peak", "decode", "range", "of bw");
  return text;
}

std::string bench_table_row(const BenchRow& row) {
  return fmt::format("{:>5} {:>6} {:>5} {:>9} {:>13} {:>7} {:>8} {:>13} {:>5}\n", row.bench_case.input_len,
                     row.bench_case.output_len, row.bench_case.batch, rate_text(row.prefill.median),
                     range_text(row.prefill), share_text(row.prefill_share), rate_text(row.decode.median),
                     range_text(row.decode), share_text(row.decode_share));
}

std::string bench_table_foot(const BenchReport& report) {
  const bool over = std::any_of(report.rows.begin(), report.rows.end(), [&](const BenchRow& row) {
    return (row.prefill_share && row.prefill_share->median > 1.0) ||
           (row.decode_share && row.decode_share->median > 1.0);
  });
  if (!over) return {};
  return "\nover 100 %: the weights fit the caches, or the machine was busy with other work\n"
         "while its peaks were measured\n";
}

std::string machine_json(const kernels::MachinePeaks& peaks) { return text_of({{"machine", peaks_json(peaks)}}); }

std::string bench_json(const BenchReport& report) {
  OrderedJson json;
  json["machine"] = report.peaks ? peaks_json(*report.peaks) : OrderedJson();
  json["model"] = {{"name", report.model}, {"load_seconds", report.load_seconds}};
  if (report.facts) {
    json["model"]["dtype"] = report.facts->dtype;
    json["model"]["parameters"] = report.facts->parameters;
    json["model"]["weight_bytes_read_per_step"] = report.facts->weight_bytes_read;
    json["model"]["kv_bytes_per_token"] = report.facts->kv_bytes_per_token;
  }
  json["rounds"] = report.rounds;
  json["rows"] = OrderedJson::array();
  for (const BenchRow& row : report.rows) {
    OrderedJson entry = {{"input_len", row.bench_case.input_len},
                         {"output_len", row.bench_case.output_len},
                         {"batch", row.bench_case.batch},
                         {"prefill_tokens_per_second", spread_json(row.prefill)},
                         {"decode_tokens_per_second", spread_json(row.decode)},
                         {"output_tokens_per_second", spread_json(row.output)},
                         {"time_to_first_token_seconds", spread_json(row.time_to_first_token)}};
    if (row.prefill_share) entry["prefill_share_of_peak"] = spread_json(*row.prefill_share);
    if (row.decode_share) entry["decode_share_of_bandwidth"] = spread_json(*row.decode_share);
    json["rows"].push_back(std::move(entry));
  }
  return text_of(json);
}

}  // namespace inferneo
