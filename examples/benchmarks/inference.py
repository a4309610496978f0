"""Embeddings against the backends of sentence-transformers, with the same encoder and chunks.

    python examples/benchmarks/inference.py
    python examples/benchmarks/inference.py --python-of-peers PATH

The question: what would a user pick instead, and is it faster? The texts are chunks of BBC news of
up to 512 tokens, decoded, so that nobody truncates. Each side embeds all of them with MiniLM and
the mean of the last layer. Sides of this package: torch and OpenVINO, each in float32 and in the
precision of "auto", and OpenVINO in int8. Sides of sentence-transformers: torch in float32,
OpenVINO, OpenVINO in int8 (quantized with the same 96 chunks), and ONNX in int8 (quantized
dynamically).

Each measurement is a process of its own, which embeds the chunks twice, and the second time counts.
The sides take turns, ``--repeats`` times; medians are printed, with the least cosine to what this
package embeds in float32.

sentence-transformers needs ``optimum-intel`` and ``optimum-onnx`` for its backends. If they take
another transformers than this package, install them in an environment of their own, and pass its
Python: ``pip install sentence-transformers "optimum-intel[openvino]" "optimum-onnx[onnxruntime]"
"datasets<5" nncf``. ``taskset -c 0`` before the command gives all sides one core, and
``ONEDNN_MAX_CPU_ISA=AVX512_CORE`` makes OpenVINO compute as on a CPU without VNNI.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

OURS = {
    "longbert torch float32": {"precision": "float32"},
    "longbert torch auto": {},
    "longbert openvino float32": {"inference": "openvino", "precision": "float32"},
    "longbert openvino auto": {"inference": "openvino"},
    "longbert openvino int8": {"inference": "openvino", "precision": "int8"},
}
PEERS = {
    "sentence-transformers torch": "torch",
    "sentence-transformers openvino": "openvino",
    "sentence-transformers openvino int8": "openvino_int8",
    "sentence-transformers onnx int8": "onnx_int8",
}
CHUNKS, SEED = 96, 0  # of calibration


def prepare(folder, n_texts):
    """Write the chunks as texts, and the encoder's name."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from _data import load_bbc_news
    from _peer import minilm

    from sklearn_longbert import TextChunker

    texts, _ = load_bbc_news()
    chosen = texts[np.random.RandomState(SEED).permutation(len(texts))[:n_texts]]
    chunker = TextChunker()
    documents = chunker.fit_transform(chosen)
    chunks = [chunk[1:-1] for document in documents for chunk in document.chunks()]
    n_tokens = sum(len(chunk) + 2 for chunk in chunks)
    decoded = [chunker.tokenizer_.decode(chunk) for chunk in chunks]
    job = {"texts": decoded, "encoder": str(minilm()), "n_tokens": n_tokens}
    (folder / "job.json").write_text(json.dumps(job))


def embed_ours(side, job):
    from sklearn_longbert import LongBertVectorizer

    vectorizer = LongBertVectorizer(job["encoder"], **OURS[side]).fit()
    return vectorizer.transform


def embed_peer(side, job):
    from sentence_transformers import SentenceTransformer

    folder, kind = Path(job["folder"]), PEERS[side]
    backend = kind.removesuffix("_int8")
    model = SentenceTransformer(job["encoder"], backend=backend, device="cpu")
    if kind == "openvino_int8":
        quantized = folder / "openvino_int8"
        if not quantized.exists():
            quantize_openvino(model, job["texts"], quantized)
        model = SentenceTransformer(
            str(quantized),
            backend=backend,
            model_kwargs={"file_name": "openvino/openvino_model_qint8_quantized.xml"},
        )
    if kind == "onnx_int8":
        from sentence_transformers import export_dynamic_quantized_onnx_model

        quantized = folder / "onnx_int8"
        if not quantized.exists():
            export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(quantized))
            model.save_pretrained(str(quantized))
        model = SentenceTransformer(
            str(quantized),
            backend=backend,
            model_kwargs={"file_name": "onnx/model_qint8_avx512_vnni.onnx"},
        )
    model.max_seq_length = 512
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def quantize_openvino(model, texts, folder):
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import export_static_quantized_openvino_model

    model.save_pretrained(str(folder))
    rows = np.random.RandomState(SEED).permutation(len(texts))[:CHUNKS]
    (folder / "texts").mkdir()
    lines = [json.dumps({"text": texts[row]}) for row in rows]
    (folder / "texts" / "train.jsonl").write_text("\n".join(lines))
    export_static_quantized_openvino_model(
        model,
        quantization_config=OVQuantizationConfig(num_samples=len(rows)),
        model_name_or_path=str(folder),
        dataset_name=str(folder / "texts"),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


def run_point(side, folder):
    job = json.loads((folder / "job.json").read_text()) | {"folder": str(folder)}
    embed = (embed_ours if side in OURS else embed_peer)(side, job)
    embed(job["texts"])  # graphs are made here
    start = time.perf_counter()
    embeddings = embed(job["texts"])
    seconds = time.perf_counter() - start
    np.save(folder / f"{side}.npy", embeddings)
    print(json.dumps({"seconds": seconds, "tokens_per_second": job["n_tokens"] / seconds}))


def start_point(side, folder, options):
    python = sys.executable if side in OURS else options.python_of_peers
    command = [python, "-W", "ignore", __file__, "--point", side, str(folder)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])["tokens_per_second"]


def least_cosine(one, two):
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return ((one * two).sum(1) / lengths).min()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--python-of-peers", default=sys.executable)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        run_point(options.point[0], Path(options.point[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.texts)
        rates = {side: [] for side in options.sides}
        for repeat in range(options.repeats):
            for side in options.sides:
                rates[side].append(start_point(side, folder, options))
                print(repeat, side, round(rates[side][-1]), flush=True)
        exact = np.load(folder / f"{options.sides[0]}.npy")
        print(f"\n{'side':38} tokens/s   least cosine to {options.sides[0]}")
        for side, found in rates.items():
            cosine = least_cosine(np.load(folder / f"{side}.npy"), exact)
            print(f"{side:38} {np.median(found):8.0f}   {cosine:.4f}")
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
