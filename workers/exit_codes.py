"""What a command ends with."""

OK = 0  # done
FOUND = 1  # check, doctor, verify and evaluate: found something
WRONG = 2  # wrong use or config
OUTSIDE = 3  # the outside world failed
INTERRUPTED = 130  # Ctrl-C, as a shell tells it
