"""The exit codes of the commands."""

OK = 0  # success
FOUND = 1  # a problem (check, doctor, verify, evaluate), a difference (diff), an input left out
WRONG = 2  # wrong use or config
OUTSIDE = 3  # a failure outside: disk, network, device, brokers
DEFECT = 70  # an error inside Fusewatch: sysexits.h, EX_SOFTWARE
INTERRUPTED = 130  # Ctrl-C, but for `run` and `worker`, which end with 0: 128 + SIGINT
TERMINATED = 143  # SIGTERM, but for `run`, `worker` and `record`, which end with 0: 128 + SIGTERM
