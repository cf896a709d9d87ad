"""`RagConfig`: one knowledge base, one YAML file in `configs/rag/`.

Each section is declared beside the code that reads it.
"""

from __future__ import annotations

from pydantic import Field

from configs import StrictModel
from rag.cite.config import CiteConfig
from rag.embed.config import EmbedConfig, SentenceTransformersConfig
from rag.generate import GenerateConfig
from rag.index.config import IndexConfig
from rag.ingest.config import IngestConfig
from rag.load.config import LoadConfig
from rag.retrieve.config import RetrieveConfig
from rag.split.config import SplitConfig

__all__ = ["RagConfig"]


class RagConfig(StrictModel):
    """Everything that turns documents into answers."""

    load: LoadConfig = LoadConfig()
    split: SplitConfig = SplitConfig()
    embed: EmbedConfig = Field(SentenceTransformersConfig(), discriminator="kind")
    index: IndexConfig = IndexConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    generate: GenerateConfig = GenerateConfig()
    cite: CiteConfig = CiteConfig()
    ingest: IngestConfig = IngestConfig()
