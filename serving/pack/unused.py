"""Packages that vLLM requires and text generation never imports, each with the reason.

Each was proved by importing vLLM's server, engine, worker, LoRA, quantization and Llama and Qwen
models (0.26.0, its CUDA platform for sm_90) with all of them hidden at once.
`corral pack --with NAME` puts one back.
"""

from __future__ import annotations

GPU_UNUSED = {
    "anthropic": "the client; vLLM's /v1/messages has types of its own",
    "fastsafetensors": "--load-format fastsafetensors alone",
    "flashinfer-python": "another attention and sampling backend; Hopper runs FlashAttention 3",
    "gguf": "GGUF files; only the built-in model is converted from one",
    "humming-kernels": "kernels for mxfp4 and nvfp4, compiled on use",
    "lm-format-enforcer": "a third structured-output backend; xgrammar and llguidance are packed",
    "numba": "speculation by n-grams, and audio",
    "nvidia-cudnn-frontend": "attention of vision encoders",
    "nvidia-cutlass-dsl": "CuTe kernels of FlashAttention 4, DeepSeek and Qwen3-Next",
    "nvtx": "marks for a profiler",
    "opencv-python-headless": "video input",
    "pynvvideocodec": "video input",
    "quack-kernels": "CuTe kernels, the same models",
    "tilelang": "kernels of DeepSeek V4",
    "tokenspeed-mla": "MLA attention on Blackwell",
    "torch-c-dlpack-ext": "older torch without DLPack exchange",
    "torchaudio": "audio input",
    "torchcodec": "audio and video input",
    "torchvision": "image input",
}
"""Left out of every GPU bundle unless asked for."""
