"""Engines: what a replica runs. `base.py` has the protocol, every other file one engine."""

from __future__ import annotations

from typing import assert_never

from serving.config import EmbeddingConfig, EngineConfig, FakeConfig, RerankConfig, VllmConfig
from serving.engines.base import Engine, EngineSpec


def build_engine(spec: EngineSpec, config: EngineConfig) -> Engine:
    """The engine that `config.kind` names. Imports only that engine's libraries."""
    match config:
        case VllmConfig():
            from serving.engines.vllm import VllmEngine

            return VllmEngine(spec, config)
        case FakeConfig():
            from serving.engines.fake import FakeEngine

            return FakeEngine(spec, config)
        case EmbeddingConfig():
            from serving.engines.embedding import EmbeddingEngine

            return EmbeddingEngine(spec, config)
        case RerankConfig():
            from serving.engines.rerank import RerankEngine

            return RerankEngine(spec, config)
        case _:
            assert_never(config)
