"""The agent as one pure object: no clock, no sockets, no files, no randomness but what is passed in.

`now` is a monotonic float in seconds wherever it appears; iteration is over sorted keys: one seed makes one run.
"""
