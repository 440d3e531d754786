"""The exit codes of the commands."""

OK = 0  # success
FOUND = 1  # check, doctor, verify and evaluate found a problem
WRONG = 2  # wrong use or config
OUTSIDE = 3  # a failure outside: disk, network, device, brokers
DEFECT = 70  # an error inside Fusewatch: sysexits.h, EX_SOFTWARE
INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells do
