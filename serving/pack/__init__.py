"""`corral pack`: everything a machine without a network needs, in parts, with an installer.

target.py    the Python and platform that wheels are chosen for
locks.py     pins of a lock for that target; which GPU lock fits a host's torch
host.py      what the host has already, from a `pip list`
cache.py     wheels fetched once, kept by digest
closure.py   which packages go in, and why the others do not
unused.py    what text generation never imports
trim.py      a wheel without the files and kernels that its GPU never loads
fatbin.py    kernels inside a shared library, by GPU architecture
archive.py   one compressed stream, cut into parts
bundle.py    puts them together, with manifest.py's record of it
summary.py   that record's sizes, as a result to keep
install.py   runs on the host, alone, on the standard library of any Python since 3.9
"""
