"""How well does it learn? Few labels, long texts, and what one would otherwise reach for.

    python examples/benchmarks/quality.py                          # everything: many hours
    python examples/benchmarks/quality.py --data bbc-50 --rows words frozen all
    python examples/benchmarks/quality.py --table                  # of what is done

Each finished fit is a file in the folder ``quality``: probabilities, labels and times. A second
call runs only what is missing, and several calls may run at the same time. At its end, a call
makes the figures of all files anew: a table, ``quality.csv``, and two pictures. ``quality.png``
shows accuracy against the number of labels, and ``quality_sets.png`` shows the accuracy on each
set, with standard errors over seeds. With ``--table``, ``--data``, ``--rows`` and ``--seeds``
limit what is shown.

Rows of words. Each is TF-IDF and logistic regression, and inner cross-validation chooses C by log
loss. words: lower-case words and their pairs. cased-words: words and punctuation marks with their
case, and their pairs. characters: two to five characters inside of words, with their case.

Rows of an encoder. frozen: LongBertVectorizer with the mean of the last layer, and logistic
regression, tuned likewise. frozen-spread: the same with the mean and the maximum of several
layers. before: LongBertClassifier with the last layer, no baseline, three epochs and the weights
after them. share, layers, baseline: before with one part of "all". all: LongBertClassifier as it
comes, with several layers and the baseline "words". all-frozen: the same without training of the
encoder. all-truncated: all of the first chunk of each text, for words too. belt: belt-nlp
1.1.0 with the same encoder, epochs, batch size and learning rate; one seed. Run only if named:
all-max, all-logsumexp, all-attention with that pooling, all-frozen-max: all-frozen with "max",
all-frozen-alone: all-frozen without a baseline, and others that are named for the one parameter in
which they differ from "all".

Data. A seed is a split. bbc-N: N training texts of BBC news and 500 test texts. conventions, books:
speeches by party and excerpts of books by age, with a third of the speakers and books held out;
fits get the groups. news-N: N training texts of nine news outlets, whose names are masked, and 450
test texts. newsgroups: by date, one seed; TF-IDF has C=30 there, and single words, or characters of
five texts and more. newsgroups-1000, newsgroups-2500: so many and 1500 texts of it.
newsgroups-rare: 200 and 400 texts of seven of its classes, the rarest of eight texts. needle-2k,
needle-8k: one sentence in texts of 2000 and 8000 tokens tells the label, 200 to learn from and 200
to test; the sentences of test texts are in no training text, fits get the sentences as groups, and
encoders read chunks of 64 tokens. reuters-1000: so many texts of reuters, and 1000. No default was
chosen on these: friends, where 200 and 300 texts are what one of six roles says in an episode;
friends-seasons, where 120 and 100 beginnings of episodes tell the part of the series; reuters, of
400 texts those of topics with five, and 500; reuters-3000, the same of so many texts, and 1500;
comments, where 400 and 500 comments on the news in Slovenian tell whether they are for, against or
neither, with no article on both sides; tales, where 22 and 22 tales of the brothers Grimm tell
whether they are of animals or of magic.

Figures. ECE has 15 bins. The columns accuracy_long and nll_long are of the test texts of more than
510 tokens alone. The columns seconds (passed) and cpu_seconds (of the process) are those of a fit
and its prediction. Differences are against the TF-IDF row that has the best accuracy on the test
texts themselves, which flatters that row. Their standard errors are those over seeds, whose test
texts partly are the same. Ranks are means over the sets that have all the compared rows. These are
the rows that ``--table --rows`` names, or all but belt, other encoders and what runs only if named.
"""

import argparse
import os
import platform
import time
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _quality_data import DATA, ONE_SEED
from _quality_figures import average_ranks, figures, paired_differences, summary
from _quality_rows import ONE_SEED_ROWS, ROWS, TFIDF_ROWS, VARIATIONS
from tqdm import tqdm

from sklearn_longbert import LongBertClassifier, TextChunker


def file_of(folder, data, name, seed):
    return folder / data / name / f"{seed}.npz"


def name_of(row, encoder):
    """Return the row's name in the results, which tells of another encoder."""
    return row if encoder is None or row in TFIDF_ROWS else f"{row}@{Path(encoder).name}"


def planned(options):
    """Return the fits to be run, as (data, seed, rows)."""
    plan = []
    for data in options.data or DATA:
        for seed in range(1 if data in ONE_SEED else options.seeds):
            rows = [
                row
                for row in options.rows or ROWS
                if (seed == 0 or row not in ONE_SEED_ROWS)
                and not file_of(options.folder, data, name_of(row, options.encoder), seed).exists()
            ]
            if rows:
                plan.append((data, seed, rows))
    return plan


def fit(split, row, encoder):
    """Return the probabilities of the test texts, the classes, and what it took."""
    start, cpu_start = time.perf_counter(), time.process_time()
    model = (ROWS | VARIATIONS)[row](split, encoder)
    takes_groups = isinstance(model, LongBertClassifier) and split.groups is not None
    model.fit(split.X, split.y, **({"groups": split.groups} if takes_groups else {}))
    return {
        "probabilities": model.predict_proba(split.X_test),
        "classes": np.asarray(model.classes_),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }


def save(path, **arrays):
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}-{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def run(options):
    """Run what is missing; what another process has finished meanwhile is skipped."""
    with tqdm(planned(options)) as bar:
        for data, seed, rows in bar:
            split = DATA[data](seed)
            # tokens of the default encoder, so that the same texts are long for all rows
            n_tokens = [document.n_tokens for document in TextChunker().fit_transform(split.X_test)]
            for row in rows:
                bar.set_description(f"{data} {row} {seed}")
                path = file_of(options.folder, data, name_of(row, options.encoder), seed)
                if not path.exists():
                    result = fit(split, row, options.encoder)
                    save(path, **result, y=np.asarray(split.y_test), n_tokens=n_tokens)


def read(folder):
    """Return the figures of all finished fits, in the order of DATA and of the rows."""
    lines = []
    for path in folder.glob("*/*/*.npz"):
        try:
            with np.load(path) as file:
                arrays = dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise SystemExit(f"{path} cannot be read, delete it: {error}") from error
        times = {name: float(arrays.pop(name)) for name in ("seconds", "cpu_seconds")}
        data, row, seed = *path.parts[-3:-1], int(path.stem)
        lines.append({"data": data, "row": row, "seed": seed, **figures(**arrays), **times})
    rows = list(ROWS | VARIATIONS)

    def place(line):
        base, _, encoder = line["row"].partition("@")
        return list(DATA).index(line["data"]), rows.index(base), encoder, line["seed"]

    return pd.DataFrame(sorted(lines, key=place))


def limited(fits, options):
    """Return the fits that the options name, with any encoder."""
    keep = fits["seed"] < options.seeds
    if options.data:
        keep &= fits["data"].isin(options.data)
    if options.rows:
        keep &= fits["row"].str.partition("@")[0].isin(options.rows)
    return fits[keep]


def show(fits, are_chosen):
    """Print the tables; ranks are of all rows if they are chosen by name."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"\nMeans over seeds\n{summary(fits).round(3).to_string()}")
    differences = paired_differences(fits, TFIDF_ROWS)
    if not differences.empty:
        print("\nDifference from the best row of TF-IDF on the same seeds, standard errors")
        print(differences.round(3).to_string())
    rows = list(fits["row"].unique())
    if not are_chosen:  # rows of few sets would leave few sets to rank on
        rows = [row for row in rows if row in ROWS and row not in ONE_SEED_ROWS]
    ranks, sets = average_ranks(fits, rows)
    if len(rows) > 1 and sets:
        print(f"\nAverage rank on sets that all have: {', '.join(sets)}")
        print(ranks.round(2).to_string())


def draw_labels(fits, path):
    """Draw accuracy against the number of labels, on BBC news."""
    few = summary(fits[fits["data"].str.startswith("bbc-")]).reset_index()
    if few.empty:
        return
    few["labels"] = few["data"].str.removeprefix("bbc-").astype(int)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for row, line in few.groupby("row", sort=False):
        errors = line["accuracy_se"].fillna(0)
        axes.errorbar(line["labels"], line["accuracy"], errors, label=row, capsize=2, marker=".")
    axes.set(xscale="log", xlabel="training texts", ylabel="accuracy", title="BBC news, 5 classes")
    ticks = sorted(set(few["labels"]))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_sets(fits, path):
    """Draw the accuracy on each set: a dot for each row, with its standard error."""
    table = summary(fits).reset_index()
    sets, rows = list(table["data"].unique()), list(table["row"].unique())
    markers, colors = "osD^v<>P*X", plt.get_cmap("tab10").colors
    height = 1.5 + len(sets) * (0.3 + 0.08 * len(rows))
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    for number, row in enumerate(rows):
        line = table[table["row"] == row]
        places = [
            sets.index(data) + 0.7 * (number + 0.5) / len(rows) - 0.35 for data in line["data"]
        ]
        axes.errorbar(
            line["accuracy"],
            places,
            xerr=line["accuracy_se"].fillna(0),
            label=row,
            marker=markers[number // 10 % len(markers)],
            color=colors[number % 10],
            linestyle="none",
            markersize=5,
        )
    axes.set_yticks(range(len(sets)), sets)
    axes.set(xlabel="accuracy", ylim=(len(sets) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, help="all, if not given")
    parser.add_argument("--rows", nargs="+", choices=ROWS | VARIATIONS)
    parser.add_argument("--seeds", type=int, default=3, help="of whole newsgroups always one")
    parser.add_argument("--encoder", type=Path, metavar="FOLDER", help="instead of the default")
    parser.add_argument("--output", type=Path, default=Path("quality.csv"))
    parser.add_argument("--table", action="store_true", help="only show what is done")
    options = parser.parse_args()
    if not options.output.suffix:
        parser.error(f"--output {options.output} has no ending, such as .csv")
    options.folder = options.output.with_suffix("")
    if not options.table:
        if options.encoder is not None and not options.encoder.is_dir():
            parser.error(f"--encoder {options.encoder} is no folder")
        run(options)
    fits = read(options.folder)
    if fits.empty:
        raise SystemExit(f"no fit is in {options.folder}")
    fits.to_csv(options.output, index=False)
    fits = limited(fits, options) if options.table else fits
    show(fits, are_chosen=options.table and options.rows is not None)
    draw_labels(fits, options.output.with_suffix(".png"))
    draw_sets(fits, options.output.with_name(f"{options.output.stem}_sets.png"))


if __name__ == "__main__":
    main()
