"""The subcommands of `python -m finetune`, one file each.

A file has NAME, SUMMARY (a line in the list of commands), a docstring that is the text of its
`--help`, `arguments`, which declares its arguments, and `run`, which does it and returns the exit
status. Heavy packages are imported inside of functions, so that `--help` stays quick.
"""
