"""Before the start: what a run needs, what it takes, and whether it can be served.

    plan = make_plan(config, model_folder, tokens)      # memory, steps, time, cost, precision
    plan.require()                                      # PlanRefused: every reason at once

shape.py      the base model's dimensions, from its config.json
workload.py   steps and tokens, from the tokenised data
memory.py     peak memory of the device and of the host
devices.py    what there is: a GPU or the CPU, and the classes that can be named instead
precision.py  bf16, nf4 or fp32, and why
speed.py      tokens a second: by the device's class, by a probe, or measured
refusals.py   what is wrong, and what would make it fit
plan.py       all of it
"""
