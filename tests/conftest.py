"""What holds for every test."""

import signal

# A run that a script starts in the background inherits "ignore Ctrl-C", and so would every process
# that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
