#include "models/cuda/cuda_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace inferneo::cuda {
namespace {

constexpr int32_t kMaxRowsToVerify = 64;           // drafts and one more, of one sequence
constexpr size_t kLogitBytes = size_t{256} << 20;  // of one piece of logits rows
constexpr int32_t kFewestLogitRows = 16;
constexpr int32_t kMostLogitRows = 65535;           // the sampling kernels' grids have a row for each
constexpr size_t kSamplingBytes = size_t{1} << 20;  // of the sampling half of a step, to begin with
constexpr size_t kEditedBytes = size_t{64} << 10;
constexpr size_t kKeptGaps = 4096;
// Batches of single tokens are filled up to the next of these, then to multiples of the last.
constexpr std::array<int32_t, 16> kBuckets = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};

Error sample_error(int32_t status) {
  switch (status) {
    case kSampleNan:
      return make_error(ErrorCode::numeric, "the model returned NaN logits");
    case kSampleInfinite:
      return make_error(ErrorCode::numeric, "the model returned infinite logits");
    default:
      return make_error(ErrorCode::numeric, "no token can be chosen: every logit is -inf");
  }
}

TokenLogprobs logprobs_of(const SampleResult& result) {
  TokenLogprobs logprobs;
  logprobs.token = result.token;
  logprobs.logprob = result.logprob;
  for (int32_t i = 0; i < result.num_top; ++i) logprobs.top.emplace_back(result.top_tokens[i], result.top_logprobs[i]);
  return logprobs;
}

}  // namespace

CudaRunner::CudaRunner(CudaModel model, const CudaRunnerOptions& options)
    : model_(std::move(model)),
      options_(options),
      pages_(options.device),
      forward_(model_.spec, model_.weights, model_.kv, model_.max_model_len),
      step_(model_.kv) {
  for (const DeviceKvGroup& group : model_.kv.groups) {
    kv_spec_.groups.push_back({group.layers,
                               group.shape.window,
                               model_.block_size,
                               {{static_cast<size_t>(group.layout.bytes_per_block()), 64}}});
  }
}

Result<std::unique_ptr<CudaRunner>> CudaRunner::create(CudaModel model, const CudaRunnerOptions& options) {
  std::unique_ptr<CudaRunner> runner(new CudaRunner(std::move(model), options));
  RETURN_IF_ERROR(runner->prepare());
  return runner;
}

Status CudaRunner::prepare() {
  ASSIGN_OR_RETURN(stream_, Stream::create(options_.device));
  ASSIGN_OR_RETURN(last_end_, Event::create(options_.device));
  for (Slot& slot : slots_) {
    ASSIGN_OR_RETURN(slot.begin, Event::create(options_.device));
    ASSIGN_OR_RETURN(slot.end, Event::create(options_.device));
  }
  if (options_.use_library && !options_.invariant) {
    ASSIGN_OR_RETURN(library_, open_device_library(options_.device, *options_.ledger, options_.name));
  }
  ops_ = std::make_unique<Ops>(*options_.device, OpsOptions{.stream = stream_.get(),
                                                            .blas = library_.blas.get(),
                                                            .blas_workspace = library_.workspace.data(),
                                                            .overlaps = options_.overlaps,
                                                            .invariant = options_.invariant});
  if (!model_.others.empty()) {
    ASSIGN_OR_RETURN(ranks_,
                     RankGroup::create({{options_.device, options_.ledger}, stream_.get(), ops_.get(), &forward_},
                                       std::move(model_.others),
                                       {.host = options_.host,
                                        .name = options_.name,
                                        .nccl = options_.nccl,
                                        .max_model_len = model_.max_model_len,
                                        .invariant = options_.invariant,
                                        .use_library = options_.use_library,
                                        .overlaps = options_.overlaps}));
  }
  graphs_on_ = options_.use_graphs && (ranks_ == nullptr || ranks_->is_capturable());
  return ok_status();
}

// Nothing of this runner is computed any more when its memory goes. Ranks that have lost one wait for it no more.
CudaRunner::~CudaRunner() {
  if (ranks_ != nullptr && !ranks_->health().ok()) ranks_.reset();
  (void)stream_.synchronize();
}

CudaRunner::Sizes CudaRunner::sizes_of(int32_t vocab_size, const DeviceKvPlan& kv, int32_t max_model_len,
                                       int32_t block_size, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  Sizes sizes;
  const auto fit = static_cast<int32_t>(kLogitBytes / (static_cast<size_t>(vocab_size) * sizeof(float)));
  sizes.logit_rows = std::min({max_num_seqs, std::max(fit, kFewestLogitRows), kMostLogitRows});
  sizes.chosen = std::max(max_num_seqs, max_num_batched_tokens);
  // A graph's batch may be filled up beyond the step's limits.
  sizes.tokens = sizes.chosen + kBuckets.back();
  sizes.seqs = max_num_seqs + kBuckets.back();
  sizes.step_bytes = StepUpload::max_bytes(kv, sizes.seqs, sizes.tokens, max_model_len, block_size);
  sizes.row_parts_bytes = 2 * sizeof(RowPart) * kScanParts * static_cast<size_t>(sizes.logit_rows);
  sizes.results_bytes = static_cast<size_t>(sizes.chosen) * sizeof(SampleResult);
  sizes.sampled_bytes = kSlots * static_cast<size_t>(sizes.chosen) * sizeof(int32_t);
  return sizes;
}

size_t CudaRunner::workspace_bytes(const DeviceForward& forward, int32_t vocab_size, const DeviceKvPlan& kv,
                                   int32_t max_model_len, int32_t block_size, int32_t max_num_seqs,
                                   int32_t max_num_batched_tokens) {
  const Sizes sizes = sizes_of(vocab_size, kv, max_model_len, block_size, max_num_seqs, max_num_batched_tokens);
  size_t bytes = kBlasWorkspace;
  for (const size_t buffer :
       {forward.workspace_bytes(sizes.tokens, sizes.seqs, sizes.logit_rows), sizes.step_bytes, sizes.row_parts_bytes,
        sizes.results_bytes, sizes.sampled_bytes, kSamplingBytes, kEditedBytes}) {
    bytes += (buffer + kDevicePage - 1) / kDevicePage * kDevicePage;
  }
  return bytes;
}

Status CudaRunner::bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  if (kv.bases.size() != model_.kv.groups.size() || kv.capacity_blocks.size() != kv.bases.size()) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("{} needs {} groups of cache blocks, got {}", options_.name, model_.kv.groups.size(),
                                  kv.bases.size()));
  }
  planes_.clear();
  limits_ = {.block_size = model_.block_size,
             .max_model_len = model_.max_model_len,
             .vocab_size = model_.spec.vocab_size,
             .max_num_seqs = max_num_seqs,
             .max_num_tokens = max_num_batched_tokens,
             .max_rows_to_verify = kMaxRowsToVerify};
  for (size_t g = 0; g < kv.bases.size(); ++g) {
    if (kv.bases[g].size() != 1 || reinterpret_cast<uintptr_t>(kv.bases[g][0]) % 64 != 0) {
      return make_error(ErrorCode::invalid_argument, "a group of cache blocks needs one plane, aligned to 64 bytes");
    }
    planes_.push_back(kv.bases[g][0]);
    limits_.groups.push_back({model_.kv.groups[g].shape.window, kv.capacity_blocks[g]});
  }
  if (max_num_seqs < 1 || max_num_batched_tokens < 1) {
    return make_error(ErrorCode::invalid_argument, "max_num_seqs and max_num_batched_tokens must be positive");
  }
  const Sizes sizes = sizes_of(model_.spec.vocab_size, model_.kv, model_.max_model_len, model_.block_size, max_num_seqs,
                               max_num_batched_tokens);
  logit_rows_ = sizes.logit_rows;
  max_chosen_ = sizes.chosen;
  const auto allocate = [&](DeviceBuffer& buffer, size_t bytes) -> Status {
    ASSIGN_OR_RETURN(buffer, DeviceBuffer::allocate(options_.device, *options_.ledger, options_.name,
                                                    MemoryPurpose::workspace, bytes));
    return ok_status();
  };
  RETURN_IF_ERROR(allocate(step_data_, sizes.step_bytes));
  RETURN_IF_ERROR(allocate(row_parts_, sizes.row_parts_bytes));
  RETURN_IF_ERROR(allocate(results_, sizes.results_bytes));
  RETURN_IF_ERROR(allocate(sampled_, sizes.sampled_bytes));
  RETURN_IF_ERROR(reserve_sampling(0, 0));
  for (Slot& slot : slots_) {
    ASSIGN_OR_RETURN(slot.upload, PinnedBuffer::allocate(options_.device, *options_.host, options_.name,
                                                         MemoryPurpose::staging, sizes.step_bytes));
    ASSIGN_OR_RETURN(slot.results, PinnedBuffer::allocate(options_.device, *options_.host, options_.name,
                                                          MemoryPurpose::staging, sizes.results_bytes));
  }
  if (ranks_ != nullptr)
    RETURN_IF_ERROR(ranks_->bind(kv, {sizes.tokens, sizes.seqs, sizes.step_bytes, sizes.sampled_bytes}));
  // The last, since it waits for the stream, on which the weights of a model that wakes may still be copied.
  return forward_.allocate(options_.device, *options_.ledger, options_.name, stream_.get(), sizes.tokens, sizes.seqs,
                           sizes.logit_rows);
}

int CudaRunner::num_open() const {
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.open; }));
}

// The token itself, or -1 - i for number i of sampled_.
Result<int32_t> CudaRunner::token_of(const StepBatch& batch, size_t sequence, int32_t index, Ticket ticket) const {
  const SequenceStep& step = batch.sequences[sequence];
  const bool is_last = index + 1 == static_cast<int32_t>(step.tokens.size());
  if (is_last && step.last_token && step.last_token->ticket != 0) {
    const TokenRef& ref = *step.last_token;
    const Slot& slot = slots_[ref.ticket % kSlots];
    const bool known = ref.ticket + 1 == ticket && slot.ticket == ref.ticket && ref.row >= 0 &&
                       static_cast<size_t>(ref.row) < slot.batch.sequences.size();
    const int32_t first = known ? slot.sampling.first_chosen(static_cast<size_t>(ref.row)) : -1;
    if (first < 0) return bad_step("a token of a ticket that is no longer known");
    return -1 - (static_cast<int32_t>(ref.ticket % kSlots) * max_chosen_ + first);
  }
  const Token token = is_last && step.last_token ? step.last_token->value : step.tokens[static_cast<size_t>(index)];
  if (token < 0 || token >= model_.spec.vocab_size) return bad_step("a token outside the vocabulary");
  return token;
}

Status CudaRunner::check_tokens(const StepBatch& batch, Ticket ticket) const {
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    for (int32_t i = 0; i < static_cast<int32_t>(batch.sequences[s].tokens.size()); ++i) {
      RETURN_IF_ERROR(token_of(batch, s, i, ticket));
    }
  }
  return ok_status();
}

// 0: computed as it is.
int32_t CudaRunner::bucket_of(const StepBatch& batch) const {
  if (!graphs_on_) return 0;
  for (const SequenceStep& step : batch.sequences) {
    if (step.tokens.size() != 1 || step.want != Want::sample || !step.prompt_targets.empty()) return 0;
  }
  const auto size = static_cast<int32_t>(batch.sequences.size());
  const auto bucket = std::lower_bound(kBuckets.begin(), kBuckets.end(), size);
  if (bucket != kBuckets.end()) return *bucket;
  return (size + kBuckets.back() - 1) / kBuckets.back() * kBuckets.back();
}

Status CudaRunner::copy_in(const DeviceBuffer& to, const PinnedBuffer& from, size_t from_offset, size_t bytes) {
  if (bytes == 0) return ok_status();
  return options_.device->check(
      options_.device->driver().copy_to_device(to.address(), from.data() + from_offset, bytes, stream_.get()),
      "copying a step's data");
}

// Grows what holds the sampling half of a step. Steps in flight read it, so they are waited for.
Status CudaRunner::reserve_sampling(size_t bytes, size_t edits) {
  const auto grow = [&](DeviceBuffer& buffer, size_t wanted) -> Status {
    if (wanted <= buffer.size()) return ok_status();
    RETURN_IF_ERROR(stream_.synchronize());
    const size_t bigger = std::max(2 * buffer.size(), wanted);
    buffer = DeviceBuffer();
    ASSIGN_OR_RETURN(buffer, DeviceBuffer::allocate(options_.device, *options_.ledger, options_.name,
                                                    MemoryPurpose::workspace, bigger));
    return ok_status();
  };
  RETURN_IF_ERROR(grow(sampling_data_, std::max(bytes, kSamplingBytes)));
  return grow(edited_, std::max(edits * sizeof(float), kEditedBytes));
}

Status CudaRunner::upload(Slot& slot, const StepBatch& batch, Ticket ticket) {
  step_.plan(batch, bucket_of(batch), options_.device->facts().multiprocessors);
  const size_t sampling_at = (step_.bytes() + 63) / 64 * 64;
  const size_t bytes = sampling_at + slot.sampling.bytes();
  if (step_.bytes() > step_data_.size()) return bad_step("block tables are longer than the context");
  if (bytes > slot.upload.size()) {
    // This slot's last step has been collected: nobody reads its memory.
    slot.upload = PinnedBuffer();
    ASSIGN_OR_RETURN(slot.upload, PinnedBuffer::allocate(options_.device, *options_.host, options_.name,
                                                         MemoryPurpose::staging, 2 * bytes));
  }
  RETURN_IF_ERROR(reserve_sampling(slot.sampling.bytes(), slot.sampling.num_edits()));
  step_.write(batch, {slot.upload.data(), slot.upload.size()}, [&](size_t sequence, int32_t index) {
    const Result<int32_t> token = token_of(batch, sequence, index, ticket);
    return token.ok() ? *token : 0;  // checked before
  });
  slot.sampling.write({slot.upload.data() + sampling_at, slot.upload.size() - sampling_at});
  if (ranks_ != nullptr) RETURN_IF_ERROR(ranks_->upload(slot.upload.data(), step_.bytes()));
  RETURN_IF_ERROR(copy_in(step_data_, slot.upload, 0, step_.bytes()));
  return copy_in(sampling_data_, slot.upload, sampling_at, slot.sampling.bytes());
}

Status CudaRunner::forward(const StepBatch& batch) {
  const DeviceBatch device_batch =
      step_.batch_at(step_data_.data(), reinterpret_cast<const int32_t*>(sampled_.data()), planes_);
  const int32_t bucket = bucket_of(batch);
  if (bucket == 0) return run_forward(device_batch);
  return forward_with_graph(device_batch, bucket);
}

Status CudaRunner::run_forward(const DeviceBatch& device_batch) {
  return ranks_ == nullptr ? forward_.run(*ops_, device_batch) : ranks_->run(step_, device_batch);
}

Result<std::vector<Graph>> CudaRunner::capture(const DeviceBatch& device_batch) {
  if (ranks_ != nullptr) return ranks_->capture(step_, device_batch);
  RETURN_IF_ERROR(Graph::begin(*options_.device, stream_.get()));
  const Status captured = forward_.run(*ops_, device_batch);
  Result<Graph> graph = Graph::end(options_.device, stream_.get());
  RETURN_IF_ERROR(captured);
  if (!graph.ok()) return std::move(graph).error();
  std::vector<Graph> graphs;
  graphs.push_back(std::move(graph).value());
  return graphs;
}

Status CudaRunner::launch(const std::vector<Graph>& graphs) {
  return ranks_ == nullptr ? graphs[0].launch(stream_.get()) : ranks_->launch(graphs);
}

// The first time as it is: kernels are loaded, algorithms chosen. The second time captured.
Status CudaRunner::forward_with_graph(const DeviceBatch& device_batch, int32_t bucket) {
  const auto found = graphs_.find(bucket);
  if (found != graphs_.end()) return launch(found->second);
  if (times_seen_[bucket]++ == 0) return run_forward(device_batch);
  Result<std::vector<Graph>> graphs = capture(device_batch);
  if (graphs.ok()) return launch(graphs_.emplace(bucket, std::move(graphs).value()).first->second);
  log_warning("{}: steps are not replayed as graphs: {}", options_.name, graphs.error().message);
  RETURN_IF_ERROR(options_.device->health());
  graphs_on_ = false;
  return run_forward(device_batch);
}

Status CudaRunner::choose_tokens(Slot& slot) {
  const auto total = static_cast<int32_t>(slot.sampling.chosen().size());
  const std::byte* base = sampling_data_.data();
  auto* parts = reinterpret_cast<RowPart*>(row_parts_.data());
  auto* sampled =
      reinterpret_cast<int32_t*>(sampled_.data()) + (slot.ticket % kSlots) * static_cast<size_t>(max_chosen_);
  for (int32_t first = 0; first < total; first += logit_rows_) {
    const int32_t rows = std::min(logit_rows_, total - first);
    RETURN_IF_ERROR(forward_.logits(*ops_, slot.sampling.row_index(base) + first, rows));
    SampleArgs args{};
    args.logits = forward_.logits_data();
    args.vocab = model_.spec.vocab_size;
    args.samples = slot.sampling.samples(base) + first;
    args.edits = slot.sampling.edits(base);
    args.edited = reinterpret_cast<float*>(edited_.data());
    args.masks = slot.sampling.masks(base);
    args.raw = parts;
    args.parts = parts + static_cast<size_t>(logit_rows_) * kScanParts;
    args.results = reinterpret_cast<SampleResult*>(results_.data()) + first;
    args.sampled = sampled + first;
    args.rows = rows;
    RETURN_IF_ERROR(ops_->sample(
        args, {slot.sampling.processes(first, first + rows), slot.sampling.wants_top(first, first + rows)}));
  }
  if (total == 0) return ok_status();
  if (ranks_ != nullptr) {
    auto* all = sampled_.data();
    RETURN_IF_ERROR(ranks_->share_sampled(all, static_cast<size_t>(reinterpret_cast<std::byte*>(sampled) - all),
                                          static_cast<size_t>(total) * sizeof(int32_t)));
  }
  return options_.device->check(
      options_.device->driver().copy_to_host(slot.results.data(), results_.address(),
                                             static_cast<size_t>(total) * sizeof(SampleResult), stream_.get()),
      "copying a step's results");
}

// Logits that go to the host, and prompt logprobs that are made of them: rare, so the step is waited for.
Status CudaRunner::host_rows(Slot& slot) {
  slot.host_results.assign(slot.batch.sequences.size(), SequenceResult());
  const std::span<const LogitsRow> wanted = slot.sampling.to_host();
  if (wanted.empty()) return ok_status();
  const auto vocab = static_cast<size_t>(model_.spec.vocab_size);
  for (size_t s = 0; s < slot.batch.sequences.size(); ++s) {
    const SequenceStep& step = slot.batch.sequences[s];
    if (step.want == Want::logits) slot.host_results[s].logits.resize(step.tokens.size() * vocab);
    slot.host_results[s].prompt_logprobs.resize(step.prompt_targets.size());
  }
  std::vector<float> logits;
  const int32_t* rows_on = slot.sampling.row_index(sampling_data_.data()) + slot.sampling.chosen().size();
  for (size_t first = 0; first < wanted.size(); first += static_cast<size_t>(logit_rows_)) {
    const size_t rows = std::min(static_cast<size_t>(logit_rows_), wanted.size() - first);
    RETURN_IF_ERROR(forward_.logits(*ops_, rows_on + first, static_cast<int32_t>(rows)));
    logits.resize(rows * vocab);
    RETURN_IF_ERROR(options_.device->check(
        options_.device->driver().copy_to_host(logits.data(), reinterpret_cast<CuPointer>(forward_.logits_data()),
                                               logits.size() * sizeof(float), stream_.get()),
        "copying logits"));
    RETURN_IF_ERROR(record_end(slot));
    RETURN_IF_ERROR(wait_for_end(slot));
    for (size_t r = 0; r < rows; ++r) {
      const LogitsRow& row = wanted[first + r];
      SequenceResult& result = slot.host_results[static_cast<size_t>(row.sequence)];
      Status finished = finish_host_row(slot, row, std::span(logits).subspan(r * vocab, vocab));
      if (!finished.ok() && !result.error) result.error = std::move(finished).error();
    }
  }
  return ok_status();
}

Status CudaRunner::finish_host_row(Slot& slot, const LogitsRow& row, std::span<const float> logits) {
  const SequenceStep& step = slot.batch.sequences[static_cast<size_t>(row.sequence)];
  SequenceResult& result = slot.host_results[static_cast<size_t>(row.sequence)];
  const auto token = static_cast<size_t>(row.token);
  if (step.want == Want::logits) {
    if (std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); })) {
      return make_error(ErrorCode::numeric, "the model's logits are not numbers");
    }
    std::copy(logits.begin(), logits.end(), result.logits.begin() + static_cast<std::ptrdiff_t>(token * logits.size()));
  }
  if (token < step.prompt_targets.size()) {
    ASSIGN_OR_RETURN(result.prompt_logprobs[token],
                     sampler_.logprobs_of(logits, step.prompt_targets[token], step.prompt_top_logprobs));
  }
  return ok_status();
}

Status CudaRunner::enqueue(Slot& slot, const StepBatch& batch, Ticket ticket) {
  slot.sampling.build(batch, model_.spec.vocab_size);
  RETURN_IF_ERROR(upload(slot, batch, ticket));
  RETURN_IF_ERROR(slot.begin.record(stream_.get()));  // what is copied in counts as a gap
  RETURN_IF_ERROR(forward(batch));
  RETURN_IF_ERROR(choose_tokens(slot));
  RETURN_IF_ERROR(host_rows(slot));
  return record_end(slot);
}

Status CudaRunner::record_end(Slot& slot) {
  if (ranks_ != nullptr) RETURN_IF_ERROR(ranks_->record_end(static_cast<int>(slot.ticket % kSlots)));
  return slot.end.record(stream_.get());
}

Status CudaRunner::wait_for_end(Slot& slot) {
  if (ranks_ != nullptr) return ranks_->wait(static_cast<int>(slot.ticket % kSlots), slot.end);
  return slot.end.synchronize();
}

Result<Ticket> CudaRunner::submit(const StepBatch& batch) {
  RETURN_IF_ERROR(options_.device->make_current());
  if (num_open() >= kSlots) return bad_step("two tickets are open already");
  RETURN_IF_ERROR(check_step(limits_, batch));
  const Ticket ticket = last_ticket_ + 1;
  RETURN_IF_ERROR(check_tokens(batch, ticket));
  Slot& slot = slot_of(ticket);
  slot.queued = num_open() > 0;
  slot.batch = batch;
  slot.ticket = ticket;
  if (Status queued = enqueue(slot, batch, ticket); !queued.ok()) {
    if (ranks_ != nullptr) ranks_->fail(queued.error());
    // What has been queued reads this slot's memory, which the next step may write.
    (void)stream_.synchronize();
    return std::move(queued).error();
  }
  slot.open = true;
  last_ticket_ = ticket;
  return ticket;
}

Status CudaRunner::read_results(Slot& slot, StepResult& result) const {
  result.sequences = std::move(slot.host_results);
  const auto* chosen = reinterpret_cast<const SampleResult*>(slot.results.data());
  for (size_t s = 0; s < slot.batch.sequences.size(); ++s) {
    const int32_t first = slot.sampling.first_chosen(s);
    if (first < 0) continue;
    const SequenceStep& step = slot.batch.sequences[s];
    SequenceResult& out = result.sequences[s];
    const int32_t drafts = step.want == Want::verify ? step.num_draft : 0;
    for (int32_t d = 0; d <= drafts; ++d) {
      const SampleResult& row = chosen[first + d];
      if (row.status != kSampleOk) {
        if (!out.error) out.error = sample_error(row.status);
        break;
      }
      out.tokens.push_back(row.token);
      if (step.sampling.params->logprobs) out.logprobs.push_back(logprobs_of(row));
      // A row is what plain decoding would have chosen only behind drafts that it would have chosen too.
      if (d < drafts && row.token != step.tokens[step.tokens.size() - static_cast<size_t>(drafts - d)]) break;
    }
    if (out.error) out.tokens.clear();
  }
  return ok_status();
}

void CudaRunner::measure(Slot& slot, StepResult& result) {
  if (const auto took = slot.end.milliseconds_since(slot.begin); took.ok()) {
    result.computing = std::chrono::duration_cast<Duration>(std::chrono::duration<float, std::milli>(*took));
  }
  if (slot.queued && has_last_end_) {
    if (const auto gap = slot.begin.milliseconds_since(last_end_); gap.ok()) {
      const float microseconds = std::max(0.0F, *gap * 1000.0F);
      if (gaps_us_.size() < kKeptGaps) {
        gaps_us_.push_back(microseconds);
      } else {
        gaps_us_[num_gaps_ % kKeptGaps] = microseconds;
      }
      ++num_gaps_;
    }
  }
  std::swap(last_end_, slot.end);
  has_last_end_ = true;
}

StepGaps CudaRunner::step_gaps() const {
  StepGaps gaps;
  gaps.count = num_gaps_;
  if (gaps_us_.empty()) return gaps;
  std::vector<float> sorted = gaps_us_;
  std::sort(sorted.begin(), sorted.end());
  gaps.median_us = sorted[sorted.size() / 2];
  gaps.p99_us = sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
  return gaps;
}

Result<StepResult> CudaRunner::collect(Ticket ticket) {
  Slot& slot = slot_of(ticket);
  const bool oldest = std::none_of(slots_.begin(), slots_.end(),
                                   [&](const Slot& other) { return other.open && other.ticket < ticket; });
  if (!slot.open || slot.ticket != ticket || !oldest) return bad_step("no such ticket is open");
  slot.open = false;
  RETURN_IF_ERROR(wait_for_end(slot));
  StepResult result;
  RETURN_IF_ERROR(read_results(slot, result));
  measure(slot, result);
  return result;
}

}  // namespace inferneo::cuda
