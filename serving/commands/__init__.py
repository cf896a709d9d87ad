"""One file per group of `corral` commands. None of them imports ray, torch or vllm."""
