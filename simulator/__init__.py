"""Predicts: a discrete-event simulator of RL clusters with speculative decoding."""
