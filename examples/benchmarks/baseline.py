"""What share of a fit's time does the baseline "words" take?

    python examples/benchmarks/baseline.py
    python examples/benchmarks/baseline.py --words 40 --texts 400

Articles of BBC news, or their first words, are fitted with the defaults and with a frozen encoder.
Shown are the processor times of the baseline, with the cross-validation of its models, and of the
whole fit, in seconds, and their ratio.
"""

import argparse
import platform
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._baselines.words import WordsBaseline


def measure(texts, topics, freeze_encoder):
    """Return the processor time of the baseline and that of the fit."""
    of_baseline, fit_baseline = [], WordsBaseline.fit

    def timed(*args, **kwargs):
        start = time.process_time()
        out_of_fold = fit_baseline(*args, **kwargs)
        of_baseline.append(time.process_time() - start)
        return out_of_fold

    classifier = LongBertClassifier(freeze_encoder=freeze_encoder, random_state=0)
    with patch.object(WordsBaseline, "fit", timed):
        start = time.process_time()
        classifier.fit(texts, topics)
        return sum(of_baseline), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--words", type=int, default=None, help="of each article; None is all")
    options = parser.parse_args()
    print(platform.machine(), platform.processor())
    texts, topics = load_bbc_news()
    chosen = np.random.RandomState(0).permutation(len(texts))[: options.texts]
    texts = [" ".join(texts[row].split()[: options.words]) for row in chosen]
    for freeze_encoder in (True, False):
        of_baseline, of_fit = measure(texts, topics[chosen], freeze_encoder)
        print(
            f"freeze_encoder={freeze_encoder}: baseline {of_baseline:.1f} s of {of_fit:.1f} s, "
            f"{of_baseline / of_fit:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
