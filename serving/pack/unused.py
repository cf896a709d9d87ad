"""Packages that vLLM or Ray require and text generation never imports, each with the reason.

Those of GPU_UNUSED were hidden all at once while vLLM's server, engine, worker, LoRA, quantization
and Llama and Qwen models were imported (0.26.0, its CUDA platform for sm_90). The stack has run
without those of UNUSED. `corral pack --with NAME` puts one back.
"""

from __future__ import annotations

UNUSED = {
    "google-api-core": "an exporter to Google's cloud; brings google-auth",
    "mcp": "tools that the server itself would call",
    "py-spy": "profiles from Ray's dashboard, which is off",
    "virtualenv": "environments that Ray would make for single tasks",
}
"""Left out of every bundle unless asked for."""
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
"""Left out of GPU bundles too."""
LOOSE = {("mistral-common", "numpy")}
"""(package, requirement) whose bound is no reason to replace the host's version.

mistral-common wants numpy below 2.4 on Python 3.12 and any on 3.13.
"""
