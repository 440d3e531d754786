"""Fuzzing: mutated media, requests, configs, records and files; `make fuzz` (python -m tests.fuzz).

Every case is made of the seed, its kind and its number alone, so one command shows it again.
"""

import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # a process that forks has one thread
