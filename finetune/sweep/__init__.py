"""A search for better settings: each trial a run of its own, the best one named.

space.py   from declared ranges to a trial's settings; pure
trial.py   one run in a child process, watched through its events
study.py   Optuna: which settings next, which trials to cut short; `best.json`
"""
