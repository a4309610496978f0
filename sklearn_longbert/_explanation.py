"""Refuse pickles of version 0.1.0.dev0, which name this module for the net of an estimator.

The error says what to do about it, which the error of a missing module would not say.
"""

from sklearn_longbert._provenance import refusal_of_pickle

raise refusal_of_pickle("0.1.0.dev0")
