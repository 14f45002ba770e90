"""Operators that let a trained model score samples. The threshold is a `keep` of its own."""
