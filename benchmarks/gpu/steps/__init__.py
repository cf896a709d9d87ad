"""What is measured: one file a kind of step, its settings beside the code that reads them.

Each has a configuration and `run(config, context)`, which returns what goes into the
result. `torch` and the training libraries are imported when a step runs, in its own process.
"""
