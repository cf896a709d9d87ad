"""What `corral doctor` looks at. One module per subject; none imports torch, vllm or ray."""

from serving.doctor.check import Check, Status

__all__ = ["Check", "Status"]
