"""Weights as they were prepared for this machine's processor, kept on disk for the next start.

`engine.prepared.keeping.Keeping` reads and keeps those of one model. A file is found by a digest of
all that its numbers follow from, so that it is never one of other weights.
"""
