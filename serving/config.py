"""`ServeConfig`: everything one `corral serve` needs, one YAML file in `configs/serve/`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs import StrictModel
from serving.finetuning.config import FilesConfig, FinetuningConfig
from serving.gateway.door_config import CorsConfig, HttpLimits, TlsConfig
from serving.gateway.limits import RequestLimits
from serving.retrieval.config import RetrievalConfig
from serving.store.config import AlertConfig, OidcConfig, PriceConfig, StoreConfig


class LoraConfig(StrictModel):
    """Adapters an engine can hold. `max_loras: 0` switches them off."""

    max_loras: int = Field(0, ge=0)
    """Different adapters in one batch, and in GPU memory, at once."""
    max_cpu_loras: int = Field(32, ge=1)
    """Adapters kept in host memory; the least recently used beyond that are dropped."""
    max_rank: int = Field(64, ge=1)
    """Largest adapter rank accepted; larger ones are refused before they load."""

    @property
    def enabled(self) -> bool:
        return self.max_loras > 0


class VllmConfig(StrictModel):
    """A model generated from (or pooled) by vLLM."""

    kind: Literal["vllm"] = "vllm"
    task: Literal["generate", "pooling"] = "generate"
    """`pooling` serves embeddings, rerank and score from the model."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto` is what the weights are stored in."""
    max_model_len: int | None = None
    """Longest prompt plus answer in tokens; by default what the model was trained for."""
    max_num_seqs: int = 64
    """Sequences in one batch."""
    max_num_batched_tokens: int | None = None
    """Tokens one step may process; with chunked prefill, the size of a chunk."""
    tensor_parallel_size: int = 1
    """GPUs that share one replica; set `replicas.num_gpus` to the same."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that weights and KV cache may take."""
    cpu_kv_cache_gib: int = Field(1, ge=1)
    """KV cache on a CPU host; a GPU sizes it from `gpu_memory_utilization`."""
    kv_cache_dtype: str = "auto"
    """`fp8` halves the KV cache on GPUs that have it; `auto` is the model's own type."""
    quantization: str | None = None
    """Method that the weights were quantised with; by default read from the model."""
    load_format: str = "auto"
    """`dummy` fills the real architecture with random weights, to measure speed."""
    enforce_eager: bool = False
    """Skip compilation and CUDA graphs: a faster start, slower steps on a GPU."""
    enable_prefix_caching: bool = True
    """Keep the KV cache of prompts for later ones that begin alike."""
    enable_chunked_prefill: bool = True
    """Process long prompts in pieces, between the steps of running answers."""
    tool_call_parser: str | None = None
    """vLLM's parser for tool calls of this family; unset, `tool_choice: auto` is refused."""
    reasoning_parser: str | None = None
    """vLLM's parser that tells a model's reasoning from its answer."""
    chat_template: str | None = None
    """Path of a Jinja file that replaces the tokenizer's own template."""
    lora: LoraConfig = LoraConfig()
    """LoRA adapters."""
    sleep_mode: bool = False
    """Be able to leave the GPU to a fine-tuning job (`finetuning.share: pause`). GPUs only."""
    omp_threads: int | None = Field(None, ge=1)
    """Threads of the CPU engine; by default as many as cores."""
    extra_args: dict[str, Any] = {}
    """Any other `vllm serve` option, by its Python name (`swap_space: 4`); vLLM validates it."""

    @model_validator(mode="after")
    def _keeps_the_worker(self) -> VllmConfig:
        if self.lora.enabled and "worker_extension_cls" in self.extra_args:
            raise ValueError(
                "extra_args.worker_extension_cls: corral's own is there when adapters are served; "
                "leave it out, or set lora.max_loras to 0"
            )
        return self


class FakeConfig(StrictModel):
    """A deterministic engine without a model: echoes the last user text at a set pace."""

    kind: Literal["fake"] = "fake"
    tokens: int = Field(32, ge=1)
    """Tokens of an answer when the request sets no limit."""
    token_interval_s: float = Field(0.0, ge=0)
    """Pause before each token after the first."""
    first_token_s: float = Field(0.0, ge=0)
    """Pause before the first token."""
    max_model_len: int = 4096
    """Longest prompt plus answer in tokens."""
    lora: LoraConfig = LoraConfig(max_loras=8)
    """LoRA adapters; the answer names the one that was asked."""


class EmbeddingConfig(StrictModel):
    """Embeddings by sentence-transformers with dynamic batching; rerank and score by MaxSim."""

    kind: Literal["embedding"] = "embedding"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is the GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is float32 on a CPU, and what the weights are stored in on a GPU."""
    max_batch_tokens: int = Field(16384, ge=1)
    """Padded tokens (batch x longest) in one forward pass."""
    max_wait_ms: float = Field(2.0, ge=0)
    """How long a batch may wait for company when the model is idle."""
    threads: int | None = None
    """Threads of a CPU's forward pass; by default what torch chooses."""


class RerankConfig(StrictModel):
    """Rerank and score by a cross-encoder (sentence-transformers `CrossEncoder`)."""

    kind: Literal["rerank"] = "rerank"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is the GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is float32 on a CPU, and what the weights are stored in on a GPU."""
    max_batch_tokens: int = Field(16384, ge=1)
    """Padded tokens (batch x longest) in one forward pass."""
    max_wait_ms: float = Field(2.0, ge=0)
    """How long a batch may wait for company when the model is idle."""
    threads: int | None = None
    """Threads of a CPU's forward pass; by default what torch chooses."""


EngineConfig = Annotated[
    VllmConfig | FakeConfig | EmbeddingConfig | RerankConfig, Field(discriminator="kind")
]


class ReplicaConfig(StrictModel):
    """How many replicas a model has, what each may hold, and what it needs."""

    min: int = Field(1, ge=0)
    """Replicas that are always there; 0 lets an idle model end."""
    max: int = Field(1, ge=1)
    """Replicas under load; equal to `min`, the number is fixed."""
    target_ongoing_requests: float = Field(32, gt=0)
    """Requests per replica that autoscaling steers to."""
    max_ongoing_requests: int = Field(256, ge=1)
    """Requests a replica works on at once; more wait in the gateway."""
    max_queued_requests: int = Field(256, ge=0)
    """Requests that may wait in a gateway for a replica; beyond that, 429 with Retry-After."""
    upscale_delay_s: float = 5.0
    """How long the load must stay high before a replica is added."""
    downscale_delay_s: float = 120.0
    """How long it must stay low before one is removed."""
    num_cpus: float = Field(0.1, ge=0)
    """Share of a node's CPUs that Ray reserves for a replica; no limit to what it uses."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that a replica gets; a fraction shares one."""
    health_period_s: float = Field(2.0, gt=0)
    """Time between two health checks of a replica."""
    health_timeout_s: float = Field(5.0, gt=0)
    """An engine that produces nothing for this long has failed one health check of three."""

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaConfig:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is larger than max ({self.max})")
        return self


class ModelConfig(StrictModel):
    """One served model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """What clients put in `model`."""
    source: str = ""
    """A built-in name, a local directory or a Hub id; by default the name itself."""
    engine: EngineConfig
    """What runs it; `kind` is one of `vllm`, `fake`, `embedding` and `rerank`."""
    replicas: ReplicaConfig = ReplicaConfig()
    """How many copies of it run, and what each may hold."""
    adapters: dict[str, str] = {}
    """Adapters besides those in `$CORRAL_HOME/adapters`: name to PEFT directory."""

    @property
    def weights(self) -> str:
        return self.source or self.name


class GatewayConfig(StrictModel):
    """The HTTP front."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` opens the API to the network, without a key."""
    port: int = Field(8000, ge=1, le=65535)
    """Port of the API."""
    replicas: int = Field(1, ge=1)
    """Gateway processes."""
    max_ongoing_requests: int = Field(1024, ge=1)
    """Requests that one gateway process works on at once."""
    max_body_mib: float = Field(16.0, gt=0)
    """Larger request bodies are refused with 413."""
    lease_timeout_s: float = Field(120.0, gt=0)
    """How long a request may wait for a replica before it is told to come back."""
    grace_s: float = Field(30.0, ge=0)
    """How long running requests may still take when the stack stops."""
    limits: RequestLimits = RequestLimits()
    """What one request may ask for."""
    http: HttpLimits = HttpLimits()
    """What one connection may take, in time and headers."""
    cors: CorsConfig = CorsConfig()
    """Web pages of other origins that may call; by default none."""
    tls: TlsConfig = TlsConfig()
    """Certificate for https; by default plain http."""
    log_content: bool = False
    """Write the bodies of requests to the gateway's log, prompts and all. Answers never are."""


class ClusterConfig(StrictModel):
    """The Ray cluster underneath."""

    address: str | None = None
    """A running cluster (`auto`, `host:6379`); unset, a private one is started on this machine."""
    object_store_mib: int = Field(100, ge=75)
    """Shared memory of a private cluster. Tokens never pass through it."""


class ServeConfig(StrictModel):
    """One complete run of the stack."""

    gateway: GatewayConfig = GatewayConfig()
    """The HTTP front."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray cluster underneath."""
    store: StoreConfig = StoreConfig()
    """Where keys, tenants, limits, usage and blobs are kept."""
    prices: dict[str, PriceConfig] = {}
    """Prices by model, or `model:adapter`; what has none is free."""
    alerts: AlertConfig = AlertConfig()
    """Who hears that a budget nears its end."""
    oidc: OidcConfig | None = None
    """An identity provider whose tokens are accepted beside API keys."""
    files: FilesConfig = FilesConfig()
    """Files that clients upload."""
    finetuning: FinetuningConfig = FinetuningConfig()
    """Fine-tuning jobs."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """Vector stores."""
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    """What is served. The first one is what `corral chat` talks to."""

    @model_validator(mode="after")
    def _one_store(self) -> ServeConfig:
        if self.cluster.address is not None and self.store.url is None:
            raise ValueError(
                "cluster.address: gateways on several machines need one store; "
                "set store.url to a PostgreSQL database"
            )
        return self

    @model_validator(mode="after")
    def _can_share(self) -> ServeConfig:
        if self.finetuning.share == "pause":
            for index, model in enumerate(self.models):
                engine = model.engine
                if isinstance(engine, VllmConfig) and engine.lora.enabled and not engine.sleep_mode:
                    raise ValueError(
                        "finetuning.share: pause needs engines that can sleep; set "
                        f"models.{index}.engine.sleep_mode to true"
                    )
        return self

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
        names = [model.name for model in models]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"model names must differ; used twice: {', '.join(sorted(twice))}")
        return models
