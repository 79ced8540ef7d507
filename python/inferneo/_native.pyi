# Made by tools/make_python_stubs.py; do not edit.
import asyncio
import enum
from collections.abc import Callable, Generator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inferneo import _bridge

__version__: str

class ModelFormat(enum.Enum):
    """What a model's files can be."""
    HUGGINGFACE = 0
    ONNX = 1
    TENSORRT = 2

class OnnxOperators(enum.Enum):
    """Which operators a converted model's graph is made of."""
    GENAI = 0
    STANDARD_21 = 1
    STANDARD_23 = 2

class Precision(enum.Enum):
    """Of a converted model's weights."""
    FLOAT32 = 0
    FLOAT16 = 1
    INT8 = 2
    INT4 = 3

class ABTestArm:
    """One of the models or ways of sampling that an A/B test compares."""
    name: str
    """1 to 64 of [A-Za-z0-9._-]; empty: A, B, C, ..."""
    model: str
    """As it is registered."""
    version: str
    """Empty: whichever the name means."""
    weight: float
    """Its share is its weight over the sum of all."""
    sampling: SamplingOverrides
    """What it samples differently."""
    prompt_template: str
    """A chat template instead of the model's own."""
    system_prompt: str
    """Begins those of its chats that have no system message."""
    settings: dict[str, str]
    """Engine settings of this arm, by their configuration names."""
    prompt_price: float
    """Per million tokens, in any currency."""
    completion_price: float
    """Per million tokens."""
    def __init__(self, *, name: str = '', model: str = '', version: str = '', weight: float = 1.0, sampling: SamplingOverrides = ..., prompt_template: str = '', system_prompt: str = '', settings: dict[str, str] = {}, prompt_price: float = 0.0, completion_price: float = 0.0) -> None: ...
    def replace(self, **fields: Any) -> ABTestArm:
        """A copy with these fields changed."""

class ABTestConfig:
    """An A/B test (docs/experiments.md): model_a, model_b and traffic_split, or two to eight arms in full."""
    name: str
    """1 to 128 of [A-Za-z0-9._-]."""
    model_a: str
    """What is there."""
    model_b: str
    """What is tried."""
    traffic_split: float
    """The share of arm B, in (0, 1)."""
    arms: list[ABTestArm]
    """Instead of the three above; the first is A."""
    salt: str
    """Another salt assigns anew; empty: the name."""
    ramp: list[ABTestRampStep]
    """Times and shares rise, and the last share is the full one; empty: at once."""
    guardrails: ABTestGuardrails
    """What stops an arm by itself."""
    false_alarm_rate: float
    """(0, 0.5)."""
    minimum_effect: float
    """A ratio worth knowing: 0.1 is 10 %; (0, 1]."""
    minimum_difference: float
    """A difference of rates worth knowing; (0, 1)."""
    minimum_samples: int
    """Of each arm, before anything is said; at least 30."""
    sticky_by: Literal['user', 'session', 'request']
    """The same key always gets the same arm."""
    primary_metric: Literal['time_to_first_token', 'inter_token', 'end_to_end', 'completion_tokens', 'error_rate', 'feedback', 'p95_time_to_first_token']
    """The one that decides."""
    def __init__(self, *, name: str = '', model_a: str = '', model_b: str = '', traffic_split: float = 0.5, arms: list[ABTestArm] = [], salt: str = '', ramp: list[ABTestRampStep] = [], guardrails: ABTestGuardrails = ..., false_alarm_rate: float = 0.05, minimum_effect: float = 0.1, minimum_difference: float = 0.05, minimum_samples: int = 100, sticky_by: Literal['user', 'session', 'request'] = 'user', primary_metric: Literal['time_to_first_token', 'inter_token', 'end_to_end', 'completion_tokens', 'error_rate', 'feedback', 'p95_time_to_first_token'] = 'time_to_first_token') -> None: ...
    def replace(self, **fields: Any) -> ABTestConfig:
        """A copy with these fields changed."""

class ABTestGuardrails:
    """Limits that stop an arm once it is certain that it breaks them."""
    max_error_rate: float | None
    """(0, 1)."""
    max_p95_time_to_first_token: float | None
    """Seconds."""
    minimum_samples: int
    """Of an arm, before it may be stopped."""
    def __init__(self, *, max_error_rate: float | None = None, max_p95_time_to_first_token: float | None = None, minimum_samples: int = 100) -> None: ...
    def replace(self, **fields: Any) -> ABTestGuardrails:
        """A copy with these fields changed."""

class ABTestRampStep:
    """From after_seconds of running time on, share of the traffic leaves arm A."""
    after_seconds: float
    """Seconds of running time."""
    share: float
    """Of the traffic, [0, 1]."""
    def __init__(self, *, after_seconds: float = 0.0, share: float = 0.0) -> None: ...
    def replace(self, **fields: Any) -> ABTestRampStep:
        """A copy with these fields changed."""

class ConvertVerification:
    """How far a converted model is from the native one."""
    @property
    def done(self) -> bool:
        """Whether they were compared."""
    @property
    def reason(self) -> str:
        """Why not."""
    @property
    def largest_difference(self) -> float:
        """Of logits, in standard deviations of a row of them."""
    @property
    def typical_difference(self) -> float:
        """The root of the mean square."""
    @property
    def bound(self) -> float:
        """Of the typical one."""
    @property
    def tokens(self) -> int:
        """That were compared."""
    @property
    def agreeing(self) -> int:
        """Of them: with the same most probable next token."""

class ConvertedModel:
    """What a conversion has written."""
    @property
    def path(self) -> str:
        """The directory."""
    @property
    def graph_bytes(self) -> int:
        """Of model.onnx."""
    @property
    def data_bytes(self) -> int:
        """Of model.onnx.data."""
    @property
    def source_bytes(self) -> int:
        """Of the weights that it was made from."""
    @property
    def max_model_len(self) -> int:
        """Longest sequence that the graph serves."""
    @property
    def seconds(self) -> float:
        """That it took."""
    @property
    def verification(self) -> ConvertVerification:
        """How far it is from the native model."""

class GenerationResult:
    """What a finished generation gives back; str() is the first sample's text."""
    @property
    def model(self) -> str:
        """That answered."""
    @property
    def samples(self) -> list[GenerationSample]:
        """SamplingParams.n of them."""
    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Of the prompt, found in the prefix cache."""
    @property
    def completion_tokens(self) -> int:
        """Generated tokens over all samples."""
    @property
    def draft_tokens(self) -> int:
        """Guessed by speculative decoding."""
    @property
    def accepted_tokens(self) -> int:
        """Of the guessed ones, those that were right."""
    @property
    def from_cache(self) -> bool:
        """Nothing was computed: the model's cache of answers had it."""
    @property
    def time_to_first_token(self) -> float:
        """Seconds since submission; 0: there is none."""
    @property
    def total_time(self) -> float:
        """Seconds since submission."""
    @property
    def prompt_logprobs(self) -> list[TokenLogprob]:
        """Of every token of the prompt but the first, with SamplingParams.prompt_logprobs."""
    @property
    def text(self) -> str:
        """The first sample's text."""
    @property
    def prompt_rows(self) -> NDArray[np.float32] | None:
        """float32 [prompt tokens, width], read-only, with SamplingParams.prompt_rows; else None. It is the result's own memory, not a copy. Needs numpy."""

class GenerationSample:
    """One of the samples of a generation."""
    @property
    def text(self) -> str:
        """Without stop strings and end-of-sequence tokens."""
    @property
    def tokens(self) -> list[int]:
        """Ids of the generated tokens."""
    @property
    def finish_reason(self) -> str:
        """"stop" or "length"."""
    @property
    def logprobs(self) -> list[TokenLogprob]:
        """One for each token, with SamplingParams.logprobs."""

class ModelInfo:
    """One registered version of a model, as it is at this moment."""
    @property
    def id(self) -> str:
        """name:version."""
    @property
    def name(self) -> str:
        """The name without the version."""
    @property
    def version(self) -> str:
        """The version."""
    @property
    def path(self) -> str:
        """Directory or hub id."""
    @property
    def format(self) -> ModelFormat | None:
        """As registered, or as found when it was loaded."""
    @property
    def state(self) -> str:
        """"unloaded", "loading", "ready", "draining", "sleeping" or "failed"."""
    @property
    def failure(self) -> str:
        """With "failed": why; with "sleeping": why it could not be woken."""
    @property
    def active(self) -> bool:
        """Whether its bare name means this version."""
    @property
    def pinned(self) -> bool:
        """Nothing takes its place in memory."""
    @property
    def aliases(self) -> list[str]:
        """Further names."""
    @property
    def leases(self) -> int:
        """How many hold it in memory now."""
    @property
    def memory_bytes(self) -> int:
        """Bytes in the ledger: weights, KV blocks, workspace."""
    @property
    def sleep_bytes(self) -> int:
        """Bytes of the host's memory, while it sleeps."""
    @property
    def load_count(self) -> int:
        """Loads since it was registered."""
    @property
    def load_seconds(self) -> float:
        """Seconds of its last load; 0: not loaded since the start."""
    @property
    def last_used(self) -> int:
        """Seconds since 1970; 0: never."""

class ModelRegistration:
    """What registering a model says about it."""
    name: str
    """Or name:version."""
    version: str
    """Empty: as the name says it, else "1"."""
    path: str
    """A directory, or a hub id."""
    format: ModelFormat | None
    """None: found out from the files."""
    revision: str
    """Of a hub id; empty: the hub's main."""
    aliases: list[str]
    """Further names."""
    pinned: bool
    """Never unloaded to make room."""
    keep_alive: int | None
    """Idle seconds in memory; None: the manager's default; -1: for ever."""
    settings: dict[str, str]
    """Of its engine, by their configuration names."""
    metadata: dict[str, str]
    """The owner's notes."""
    def __init__(self, *, name: str = '', version: str = '', path: str = '', format: ModelFormat | None = None, revision: str = '', aliases: list[str] = [], pinned: bool = False, keep_alive: int | None = None, settings: dict[str, str] = {}, metadata: dict[str, str] = {}) -> None: ...
    def replace(self, **fields: Any) -> ModelRegistration:
        """A copy with these fields changed."""

class RoutingCandidate:
    """A model that a strategy may choose."""
    model: str
    """A name, name:version or alias."""
    weight: float
    """For the strategy weighted; 0: never."""
    def __init__(self, *, model: str = '', weight: float = 1.0) -> None: ...
    def replace(self, **fields: Any) -> RoutingCandidate:
        """A copy with these fields changed."""

class RoutingOptions:
    """How a model is chosen where no rule matches."""
    strategy: Literal['default', 'round_robin', 'least_loaded', 'lowest_latency', 'weighted']
    """How one of the candidates is chosen."""
    default_model: str
    """Empty: the first model."""
    candidates: list[RoutingCandidate]
    """Of every strategy but 'default'."""
    spill_over_at: int
    """Requests waiting for a model of a chain; 0: never."""
    fallbacks: dict[str, list[str]]
    """Model -> what follows when it cannot serve."""
    def __init__(self, *, strategy: Literal['default', 'round_robin', 'least_loaded', 'lowest_latency', 'weighted'] = 'default', default_model: str = '', candidates: list[RoutingCandidate] = [], spill_over_at: int = 0, fallbacks: dict[str, list[str]] = {}) -> None: ...
    def replace(self, **fields: Any) -> RoutingOptions:
        """A copy with these fields changed."""

class RoutingRefusal:
    """The answer to requests that a rule refuses."""
    status: int
    """HTTP status, 400 to 599."""
    message: str
    """For the client."""
    def __init__(self, *, status: int = 403, message: str = '') -> None: ...
    def replace(self, **fields: Any) -> RoutingRefusal:
        """A copy with these fields changed."""

class RoutingRule:
    """Which requests go where; docs/routing.md has the language of conditions. Exactly one of model_name, ab_test, models and refusal is set."""
    name: str
    """Unique; 1 to 128 of letters, digits and _ - . /"""
    condition: str
    """When it matches; "true": always."""
    model_name: str
    """A name, name:version or alias."""
    priority: int
    """Higher is asked earlier; among equals the older rule."""
    ab_test: str
    """An A/B test's name."""
    models: list[str]
    """A chain: the first, and what follows it when it cannot serve."""
    refusal: RoutingRefusal | None
    """No model: this answer."""
    enabled: bool
    """False: it is kept and not asked."""
    applies_to: Literal['routed', 'all']
    """routed: requests that leave the choice open; all: those that name a model as well."""
    def __init__(self, *, name: str = '', condition: str = '', model_name: str = '', priority: int = 0, ab_test: str = '', models: list[str] = [], refusal: RoutingRefusal | None = None, enabled: bool = True, applies_to: Literal['routed', 'all'] = 'routed') -> None: ...
    def replace(self, **fields: Any) -> RoutingRule:
        """A copy with these fields changed."""

class SamplingOverrides:
    """What an arm samples differently; None: as the request has it."""
    temperature: float | None
    """See SamplingParams, as for the other fields."""
    top_k: int | None
    """See SamplingParams."""
    top_p: float | None
    """See SamplingParams."""
    min_p: float | None
    """See SamplingParams."""
    repetition_penalty: float | None
    """See SamplingParams."""
    presence_penalty: float | None
    """See SamplingParams."""
    frequency_penalty: float | None
    """See SamplingParams."""
    max_tokens: int | None
    """Tokens."""
    def __init__(self, *, temperature: float | None = None, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None, repetition_penalty: float | None = None, presence_penalty: float | None = None, frequency_penalty: float | None = None, max_tokens: int | None = None) -> None: ...
    def replace(self, **fields: Any) -> SamplingOverrides:
        """A copy with these fields changed."""

class SamplingParams:
    """How tokens are chosen."""
    temperature: float
    """0 is greedy."""
    top_k: int
    """0 or -1: off."""
    top_p: float
    """(0, 1]."""
    min_p: float
    """[0, 1]."""
    typical_p: float
    """(0, 1]."""
    repetition_penalty: float
    """Over prompt and output; greater than 0, 1: none."""
    presence_penalty: float
    """[-2, 2]; over output."""
    frequency_penalty: float
    """[-2, 2]; over output."""
    logit_bias: list[tuple[int, float]]
    """Added to the logits of these tokens."""
    seed: int | None
    """Sample i draws from (seed, i, position); None: chosen anew for each request."""
    stop: list[str]
    """Texts that end the output and are not part of it; at most 16. A str is taken as one."""
    stop_token_ids: list[int]
    """Tokens that end the output."""
    ignore_eos: bool
    """Go on behind end-of-sequence tokens."""
    min_tokens: int
    """No end before this many tokens."""
    max_tokens: int | None
    """Tokens; None: up to the context's end."""
    num_speculative_tokens: int | None
    """Tokens guessed at a time, at most; None: as the model is set; 0: no guesses. The output is the same."""
    n: int
    """Independent samples of one prompt, 1 to 16."""
    logprobs: int | None
    """0 to 20: the logprob of each token and this many best; None: none."""
    prompt_logprobs: int | None
    """0 to 20: the same of the prompt's tokens."""
    answer_cache: bool
    """Greedy requests may be answered from the model's cache of answers; False: computed, and not kept."""
    prompt_rows: Literal['none', 'logits', 'hidden']
    """Rows of numbers about the prompt's tokens; else than 'none': nothing is generated."""
    json_schema: str | None
    """The text is JSON of this schema (JSON text)."""
    regex: str | None
    """The text matches this regular expression."""
    grammar: str | None
    """The text follows this Lark grammar."""
    json_object: bool
    """The text is a JSON object."""
    choices: list[str]
    """The text is one of these."""
    def __init__(self, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, typical_p: float = 1.0, repetition_penalty: float = 1.0, presence_penalty: float = 0.0, frequency_penalty: float = 0.0, logit_bias: list[tuple[int, float]] = [], seed: int | None = None, stop: list[str] = [], stop_token_ids: list[int] = [], ignore_eos: bool = False, min_tokens: int = 0, max_tokens: int | None = None, num_speculative_tokens: int | None = None, n: int = 1, logprobs: int | None = None, prompt_logprobs: int | None = None, answer_cache: bool = True, prompt_rows: Literal['none', 'logits', 'hidden'] = 'none', json_schema: str | None = None, regex: str | None = None, grammar: str | None = None, json_object: bool = False, choices: list[str] = []) -> None: ...
    def replace(self, **fields: Any) -> SamplingParams:
        """A copy with these fields changed."""

class ShadowConfig:
    """Copies of a share of one model's requests go to another (docs/shadow.md)."""
    name: str
    """1 to 128 of [A-Za-z0-9._-]."""
    model: str
    """Whose requests are copied; empty: everybody's."""
    shadow_model: str
    """Who gets the copies."""
    share: float
    """Of the requests, (0, 1]."""
    salt: str
    """Another salt chooses anew; empty: the name."""
    max_tokens_per_minute: int
    """Of copies; 0: no limit."""
    max_concurrent: int
    """Copies that the shadow model has in hand, 1 to 1024."""
    max_queue: int
    """Copies that wait for that, 0 to 65536."""
    load: bool
    """Load the shadow model where there is room for it."""
    keep_texts: bool
    """Keep both texts (their beginnings) in the results."""
    enabled: bool
    """False: nothing is copied."""
    def __init__(self, *, name: str = '', model: str = '', shadow_model: str = '', share: float = 1.0, salt: str = '', max_tokens_per_minute: int = 0, max_concurrent: int = 16, max_queue: int = 1024, load: bool = False, keep_texts: bool = False, enabled: bool = True) -> None: ...
    def replace(self, **fields: Any) -> ShadowConfig:
        """A copy with these fields changed."""

class TokenLogprob:
    """How likely a token was."""
    @property
    def token(self) -> int:
        """Its id."""
    @property
    def logprob(self) -> float:
        """Natural log, of the distribution before temperature and filters."""
    @property
    def text(self) -> str:
        """Of the token alone; may hold U+FFFD."""
    @property
    def top(self) -> list[tuple[int, float]]:
        """The most likely tokens and their logprobs, best first; as many as asked for."""

class Starting:
    def __init__(self) -> None: ...
    def give_up(self) -> None: ...

class Ticket:
    def cancel(self) -> None: ...

class Answer:
    ticket: _bridge.Ticket | None
    def __init__(self, loop: asyncio.AbstractEventLoop, waiters: dict[int, Any], request: int) -> None: ...
    def __await__(self) -> Generator[Any, None, Any]: ...
    def done(self) -> bool: ...

class EventQueue:
    def __init__(self) -> None: ...
    def take(self, timeout: float) -> list[tuple[int, int, Any]]: ...
    def deliver(self, waiters: dict[int, Any]) -> None: ...
    def fileno(self) -> int: ...
    def new_id(self) -> int: ...
    def put_text(self, request: int, sample: int, text: str) -> None: ...
    def put_error(self, request: int, code: str, message: str, param: str, retry_after: int) -> None: ...
    def put_result(self, request: int, model: str, samples: list[tuple[str, str]], prompt_tokens: int, cached_tokens: int,
                   completion_tokens: int, time_to_first_token: float, total_time: float) -> None: ...
    def put_embedding(self, request: int, model: str, vectors: bytes, dimensions: int, prompt_tokens: int) -> None: ...

class Embeddings:
    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def vectors(self) -> NDArray[np.float32]: ...

class Config:
    routing_rules: list[RoutingRule]
    ab_tests: list[ABTestConfig]
    shadow: list[ShadowConfig]
    warnings: list[str]
    notices: list[str]
    @staticmethod
    def load(values: dict[str, list[str]], file: str | None, use_environment: bool) -> Config: ...
    @staticmethod
    def fields() -> list[dict[str, Any]]: ...
    def get(self, name: str) -> Any: ...
    def set(self, name: str, values: list[str]) -> None: ...
    def changed(self) -> dict[str, str]: ...
    def written(self) -> dict[str, list[str]]: ...
    given: list[str]
    def copy(self) -> Config: ...

class Lease:
    def id(self) -> str: ...
    def submit(self, queue: EventQueue, request: int, prompt: str, sampling: SamplingParams, stream: bool) -> Ticket: ...
    def begin(self, prompt: str, sampling: SamplingParams | None, fields: dict[str, Any]) -> Answer | None: ...
    def wait_for(self, prompt: str, sampling: SamplingParams | None, fields: dict[str, Any]) -> GenerationResult | None: ...
    def embed(self, queue: EventQueue, request: int, texts: list[str], pooling: str, normalize: bool | None) -> Ticket: ...
    def end(self) -> None: ...

class Converter:
    def __init__(self, config: Config) -> None: ...
    def convert_model(self, *, model: str, output: str, precision: Precision, block_size: int, accuracy_level: int,
                      operators: OnnxOperators, half_activations: bool, max_model_len: int, verify: bool, overwrite: bool,
                      on_progress: Callable[[str, int, int], object] | None) -> ConvertedModel: ...
    def end(self) -> None: ...

class Engine:
    def __init__(self, config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class EnhancedEngine:
    def __init__(self, config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Manager:
    def __init__(self, max_models: int, max_memory_gb: float, enable_lazy_loading: bool, registry: str,
                 config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def make_model_info(*, id: str, name: str, version: str, path: str, format: ModelFormat | None, state: str, failure: str,
                    active: bool, pinned: bool, aliases: list[str], leases: int, memory_bytes: int, sleep_bytes: int,
                    load_count: int, load_seconds: float, last_used: int) -> ModelInfo: ...
def set_only_loop(loop: asyncio.AbstractEventLoop, events: _bridge._LoopEvents) -> None: ...
def forget_only_loop() -> None: ...
def only_loop_events(loop: asyncio.AbstractEventLoop) -> _bridge._LoopEvents | None: ...
def close_waits() -> None: ...
def num_waits() -> int: ...
def reset_waits() -> None: ...
def error_codes() -> list[str]: ...
def set_log_level(name: str) -> None: ...
