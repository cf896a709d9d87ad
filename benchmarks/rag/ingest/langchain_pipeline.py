"""What one writes first: LangChain's recursive splitter, sentence-transformers, qdrant-client.

    python -m benchmarks.rag.ingest.langchain_pipeline FOLDER MODEL CHUNK_TOKENS

Reads Markdown and text. Prints one line of JSON: files, chunks, seconds in all and by stage.
Loading the model is not counted. The index is qdrant-client's local mode in a folder, dense
vectors only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def main(folder: Path, model_folder: str, chunk_tokens: int) -> None:
    """Ingest `folder` once."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from qdrant_client import QdrantClient, models
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_folder, local_files_only=True)
    splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
        model.tokenizer, chunk_size=chunk_tokens, chunk_overlap=0
    )
    size = model.get_embedding_dimension()
    assert size is not None
    with tempfile.TemporaryDirectory() as home:
        client = QdrantClient(path=home)
        vectors = models.VectorParams(size=size, distance=models.Distance.COSINE)
        client.create_collection("documents", vectors_config=vectors)
        marks = [time.perf_counter()]
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".txt"))
        texts = [path.read_text(encoding="utf-8") for path in files]
        marks.append(time.perf_counter())
        chunks = [chunk for text in texts for chunk in splitter.split_text(text)]
        marks.append(time.perf_counter())
        found = model.encode(chunks, show_progress_bar=False)
        marks.append(time.perf_counter())
        points = [
            models.PointStruct(id=at, vector=vector.tolist(), payload={"text": chunk})
            for at, (chunk, vector) in enumerate(zip(chunks, found, strict=True))
        ]
        client.upsert("documents", points)
        marks.append(time.perf_counter())
        client.close()
    stages = ("parse", "split", "embed", "index")
    took = {name: marks[at + 1] - marks[at] for at, name in enumerate(stages)}
    print(
        json.dumps(
            {
                "files_done": len(files),
                "chunks": len(chunks),
                "elapsed_s": marks[-1] - marks[0],
                "stage_s": took,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
