"""The module that pickles of version 0.1.0.dev0 name for the net of a fitted estimator.

Such a pickle is refused here with its cure, which a missing module would not tell.
"""

from sklearn_longbert._provenance import refusal_of_pickle

raise refusal_of_pickle("0.1.0.dev0")
