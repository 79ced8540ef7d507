# Made by tools/make_python_stubs.py; do not edit.
import os
from collections.abc import Iterable
from typing import Any

from inferneo import _native
from inferneo._native import ABTestConfig, RoutingRule, ShadowConfig

class EngineConfig:
    """What an engine is told; docs/configuration.md has every field."""

    _native: _native.Config
    model: list[str]
    """Model directory or hub id; may be given several times. Expected: text."""
    served_model_name: list[str]
    """Name in the API; one model may have several. Expected: text."""
    max_model_len: int | None
    """Longest prompt and output in tokens. Expected: 'auto' or a whole number from 1 to 16777216."""
    dtype: str
    """auto, bf16, f16 or f32; auto: as the model says. Expected: one of auto, bf16, f16, f32."""
    quantization: str
    """Weights in fewer bits, made at load: none, int8, int4, or on a GPU fp8. Expected: one of none, int8, int4, fp8."""
    kv_cache_dtype: str
    """Type of the KV cache; auto: the type of computation; int8, fp8: with a scale for each token and head. Expected: one of auto, bf16, f16, f32, int8, fp8."""
    chat_template: str
    """Jinja file instead of the model's own. Expected: text."""
    task: str
    """What an ONNX graph is for; auto: as its inputs and outputs say. Expected: one of auto, generate, embed, tensors."""
    pooling: str
    """Of an embedding graph's rows; auto: as the files beside it say, else mean. Expected: one of auto, mean, cls, last."""
    normalize_embeddings: str
    """To the length 1; auto: as the files beside the graph say, else true. Expected: one of auto, true, false."""
    model_roots: list[str]
    """Folder below which models may be opened, besides those named. Expected: text."""
    home: str
    """Folder for Inferneo's own files, such as packed weights. Expected: text."""
    registry: str
    """File in which a server keeps its registered models; memory: none. Expected: text."""
    packed_cache_gb: float
    """GiB on disk for packed weights, which the next load maps. Expected: a number from 0 to 1048576."""
    max_models: int
    """Most models in memory at once. Expected: a whole number from 0 to 10000."""
    enable_lazy_loading: bool
    """Load a model at its first request instead of at the start. Expected: true or false."""
    warm_up: bool
    """Have each loaded model compute a few tokens before it takes requests. Expected: true or false."""
    load_timeout: float
    """Seconds that loading a model may take, its download apart. Expected: a number from 0 to 1000000."""
    keep_alive: float
    """With lazy loading: seconds that a model stays without requests. Expected: a number from 0 to 1000000."""
    kv_keep_alive: float
    """Seconds that a model without requests keeps its KV memory, cached prefixes included. Expected: a number from 0 to 1000000."""
    hub_cache: str
    """Cache of the hub, where ids are looked up. Expected: text."""
    hub_endpoint: str
    """Where the hub answers, for mirrors. Expected: text."""
    hub_token: str
    """Token for gated and private models. Expected: text."""
    hub_token_file: str
    """File that holds the token. Expected: text."""
    hub_offline: bool
    """Never ask the hub; use what is in its cache. Expected: true or false."""
    max_num_seqs: int
    """Most sequences computed in one step. Expected: a whole number from 1 to 65536."""
    max_num_batched_tokens: int | None
    """Most tokens computed in one step. Expected: 'auto' or a whole number from 1 to 16777216."""
    inter_token_target_ms: float
    """With auto: ms between two tokens, or twice a step, while prompts come in. Expected: a number from 0.001 to 1000000."""
    max_queue_requests: int
    """Waiting requests before new ones get 429. Expected: a whole number from 1 to 1000000."""
    max_queue_tokens: int
    """Waiting prompt tokens before new requests get 429. Expected: a whole number from 1 to 1000000000000."""
    request_timeout: float
    """Seconds after which a request is ended. Expected: a number from 0 to 1000000."""
    idle_compute_share: float
    """Share of the time for shadow copies while requests are computed. Expected: a number from 0 to 0.5."""
    deterministic: bool
    """Same tokens whatever else is in the batch. Expected: true or false."""
    seed: int | None
    """Seed of requests that bring none; random: drawn for each. Expected: 'random' or a whole number from 0 to 2^64-1."""
    enable_speculative_decoding: bool
    """Guess tokens from what came before, and verify them: the same text in fewer steps. Expected: true or false."""
    num_speculative_tokens: int
    """Tokens guessed at a time, at most; fewer where they do not pay. Expected: a whole number from 1 to 15."""
    draft_model: str
    """Smaller model of the same vocabulary that guesses too, where speculation is enabled. Expected: text."""
    block_size: int
    """Tokens of a KV block. Expected: a power of two from 1 to 1024."""
    enable_prefix_caching: bool
    """Reuse the KV of equal prompt beginnings. Expected: true or false."""
    enable_paged_attention: bool
    """Page the KV cache; off: one block a sequence, no prefix cache. Expected: true or false."""
    kv_cache_gb: float
    """GiB of KV cache over all models. Expected: a number from 0 to 1048576."""
    prefix_cache_dir: str
    """Folder for cached prefixes that leave memory, of models on the CPU; they survive restarts. Expected: text."""
    prefix_cache_disk_gb: float
    """GiB on disk for cached prefixes, of all models; the least recently used go first. Expected: a number from 0 to 1048576."""
    token_cache_mb: float
    """MiB for remembered tokens of texts. Expected: a number from 0 to 1048576."""
    answer_cache_mb: float
    """MiB for whole greedy answers. Expected: a number from 0 to 1048576."""
    answer_cache_ttl: float
    """Seconds that an answer is remembered. Expected: a number from 0 to 1000000."""
    device: str
    """auto, cpu, cuda or cuda:N. Expected: auto, cpu, cuda or cuda:N."""
    isa: str
    """Instruction set of the CPU kernels; auto: the best there is. Expected: text."""
    num_threads: int
    """Compute threads. Expected: a whole number from 0 to 4096."""
    max_memory_gb: float
    """GiB for weights, KV cache and work space. Expected: a number from 0 to 1048576."""
    gpu_memory_utilization: float
    """Share of a GPU's memory to use. Expected: a number from 0.01 to 1."""
    sleep_memory_share: float
    """Share of max_memory_gb for the weights of models that have left a GPU. Expected: a number from 0 to 1."""
    enable_cuda_graph: bool
    """Replay decode steps as CUDA graphs. Expected: true or false."""
    tensor_parallel_size: int
    """GPUs that share a model: that of device and those behind it. Expected: a whole number from 1 to 1024."""
    onnxruntime: str
    """Shared library of ONNX Runtime. Expected: text."""
    onnx_check: str
    """Graphs that a child process opens first; foreign: those that were not converted here. Expected: one of foreign, always, never."""
    onnx_run_timeout: float
    """Seconds that one run of a graph may take before it is ended; 0: no limit. Expected: a number from 0 to 1000000."""
    onnx_provider: str
    """auto, cpu, cuda or tensorrt. Expected: one of auto, cpu, cuda, tensorrt."""
    onnx_gpu_memory_gb: float
    """GiB of a GPU for a graph. Expected: a number from 0 to 1048576."""
    host: str
    """Address; a public one needs an API key. Expected: text."""
    port: int
    """Port to listen on; 0: any free one. Expected: a whole number from 0 to 65535."""
    api_key: list[str]
    """Key that clients must send; may be repeated. Expected: visible ASCII characters without spaces."""
    admin_key: list[str]
    """Key of the admin routes; none: loopback only. Expected: visible ASCII characters without spaces."""
    tls_cert: str
    """Certificate chain in PEM; turns HTTPS on. Expected: text."""
    tls_key: str
    """Private key of the certificate in PEM. Expected: text."""
    insecure: bool
    """Allow a public address without an API key. Expected: true or false."""
    io_threads: int
    """Threads for HTTP. Expected: a whole number from 0 to 1024."""
    max_body_mb: float
    """Largest request body in MiB, after decompression. Expected: a number from 0.001 to 1024."""
    allowed_origins: list[str]
    """Origin of web pages that may call the API; *: any. Expected: *, or scheme://host[:port] in lower case and without a path."""
    metrics_public: bool
    """Serve /metrics without a key. Expected: true or false."""
    drain_timeout: float
    """Seconds that running requests get at shutdown. Expected: a number from 0 to 1000000."""
    requests_per_minute: int
    """Requests per minute of each key; more get 429. Expected: a whole number from 0 to 1000000000000."""
    tokens_per_minute: int
    """Tokens per minute of each key, prompts and generated ones. Expected: a whole number from 0 to 1000000000000."""
    max_concurrent_requests: int
    """Requests of each key under way at a time. Expected: a whole number from 0 to 1000000000000."""
    max_total_queue_requests: int
    """Requests without a first token, of all models, before new ones get 429. Expected: a whole number from 0 to 1000000000000."""
    max_total_queue_tokens: int
    """Their prompt tokens before new ones get 429. Expected: a whole number from 0 to 1000000000000."""
    log_level: str
    """debug, info, warning, error or off. Expected: one of debug, info, warning, error, off."""
    quiet: bool
    """No progress lines. Expected: true or false."""
    otlp_endpoint: str
    """Collector for traces (OTLP over HTTP). Expected: text."""
    otlp_traces_endpoint: str
    """The same, with its path. Expected: text."""
    otlp_headers: list[str]
    """Header for it, name=value; may be repeated. Expected: name=value, where a value's special characters are written as %XX."""
    otlp_service_name: str
    """Name of this server in traces. Expected: text."""
    trace_sample_ratio: float
    """Share of undecided requests that are traced. Expected: a number from 0 to 1."""
    routing_rules: list[RoutingRule]
    ab_tests: list[ABTestConfig]
    shadow: list[ShadowConfig]

    def __init__(self, *, config_file: str | os.PathLike[str] | None = None, use_environment: bool = True,
                 model: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 served_model_name: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 max_model_len: int | None = ...,
                 dtype: str = ...,
                 quantization: str = ...,
                 kv_cache_dtype: str = ...,
                 chat_template: str | os.PathLike[str] = ...,
                 task: str = ...,
                 pooling: str = ...,
                 normalize_embeddings: str = ...,
                 model_roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 home: str | os.PathLike[str] = ...,
                 registry: str | os.PathLike[str] = ...,
                 packed_cache_gb: float = ...,
                 max_models: int = ...,
                 enable_lazy_loading: bool = ...,
                 warm_up: bool = ...,
                 load_timeout: float = ...,
                 keep_alive: float = ...,
                 kv_keep_alive: float = ...,
                 hub_cache: str | os.PathLike[str] = ...,
                 hub_endpoint: str = ...,
                 hub_token: str = ...,
                 hub_token_file: str | os.PathLike[str] = ...,
                 hub_offline: bool = ...,
                 max_num_seqs: int = ...,
                 max_num_batched_tokens: int | None = ...,
                 inter_token_target_ms: float = ...,
                 max_queue_requests: int = ...,
                 max_queue_tokens: int = ...,
                 request_timeout: float = ...,
                 idle_compute_share: float = ...,
                 deterministic: bool = ...,
                 seed: int | None = ...,
                 enable_speculative_decoding: bool = ...,
                 num_speculative_tokens: int = ...,
                 draft_model: str | os.PathLike[str] = ...,
                 block_size: int = ...,
                 enable_prefix_caching: bool = ...,
                 enable_paged_attention: bool = ...,
                 kv_cache_gb: float = ...,
                 prefix_cache_dir: str | os.PathLike[str] = ...,
                 prefix_cache_disk_gb: float = ...,
                 token_cache_mb: float = ...,
                 answer_cache_mb: float = ...,
                 answer_cache_ttl: float = ...,
                 device: str = ...,
                 isa: str = ...,
                 num_threads: int = ...,
                 max_memory_gb: float = ...,
                 gpu_memory_utilization: float = ...,
                 sleep_memory_share: float = ...,
                 enable_cuda_graph: bool = ...,
                 tensor_parallel_size: int = ...,
                 onnxruntime: str | os.PathLike[str] = ...,
                 onnx_check: str = ...,
                 onnx_run_timeout: float = ...,
                 onnx_provider: str = ...,
                 onnx_gpu_memory_gb: float = ...,
                 host: str = ...,
                 port: int = ...,
                 api_key: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 admin_key: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 tls_cert: str | os.PathLike[str] = ...,
                 tls_key: str | os.PathLike[str] = ...,
                 insecure: bool = ...,
                 io_threads: int = ...,
                 max_body_mb: float = ...,
                 allowed_origins: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 metrics_public: bool = ...,
                 drain_timeout: float = ...,
                 requests_per_minute: int = ...,
                 tokens_per_minute: int = ...,
                 max_concurrent_requests: int = ...,
                 max_total_queue_requests: int = ...,
                 max_total_queue_tokens: int = ...,
                 log_level: str = ...,
                 quiet: bool = ...,
                 otlp_endpoint: str = ...,
                 otlp_traces_endpoint: str = ...,
                 otlp_headers: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ...,
                 otlp_service_name: str = ...,
                 trace_sample_ratio: float = ...,
                 routing_rules: Iterable[RoutingRule] = ..., ab_tests: Iterable[ABTestConfig] = ...,
                 shadow: Iterable[ShadowConfig] = ...) -> None: ...
    @staticmethod
    def fields() -> list[dict[str, Any]]: ...
    def replace(self, **fields: Any) -> EngineConfig: ...
    def _as_used(self) -> EngineConfig: ...
