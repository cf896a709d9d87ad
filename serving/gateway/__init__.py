"""HTTP in, HTTP out: names, leases, bytes. Imports no ray, torch or vllm."""
