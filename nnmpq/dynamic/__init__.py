"""Precision chosen per input: blocks in several precisions that share weights, and gates that pick one a sample."""
