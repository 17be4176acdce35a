"""Sampling: noise, penalties, draws from whole rows and from filtered ones, log-probabilities."""
