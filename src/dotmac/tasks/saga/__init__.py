"""The saga kernel: a journal of events, one fold, one decision function. Pure: no I/O, clock or randomness."""
