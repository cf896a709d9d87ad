"""What one card can do, measured in minutes: ceilings, serving, adapters, training, tuning.

On a machine without a way out, from the bundle's folder:

    sh install.sh
    python -m benchmarks.gpu --out gpu-results --budget 20m
    cp gpu-results/gpu-*.* benchmarks/results/
    python -m benchmarks.gpu.page benchmarks/results

A step is a child process with a limit of its own; what it found is on disk as soon as it
ends, and the same command again goes on where the last one stopped. Beforehand, on any
machine: `python -m benchmarks.gpu --rehearse --out DIR` runs every step on the CPU.
"""
