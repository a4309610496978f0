"""The encoder as a graph of OpenVINO, which computes hidden states on CPUs without gradients.

NNCF quantizes a graph to int8: it chooses the ranges of activations by what they are for some
chunks, the calibration. The quantized graph is kept with the encoder, so that it predicts the same
in every process.

Invariant: this package never imports openvino_telemetry, through which both libraries would send
reports.
"""

import importlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from sklearn_longbert._encoding.hidden_states import wanted_states
from sklearn_longbert._encoding.remembered import digest
from sklearn_longbert._pretrained.loading import encoder_limit, rebuild_encoder, silenced

PROBE_LENGTHS = (300, 5, 3)  # of chunks by which a graph is checked, if the encoder takes them
TOLERANCES = {False: 1e-3, True: 0.05}  # relative, in float32 and in bfloat16

_import_lock = RLock()


@dataclass(frozen=True)
class QuantizedGraph:
    """A graph in int8, as OpenVINO writes it.

    Attributes
    ----------
    xml : str
        The graph without its weights.
    weights : ndarray of shape (n_bytes,), dtype uint8
    """

    xml: str
    weights: NDArray[np.uint8]

    @property
    def files(self) -> tuple[str, NDArray[np.uint8]]:
        """Both attributes, plain values."""
        return self.xml, self.weights

    @cached_property
    def digest(self) -> bytes:
        """A digest of graph and weights."""
        return digest(self.xml.encode(), self.weights.tobytes())

    @property
    def nbytes(self) -> int:
        """Number of bytes of graph and weights."""
        return len(self.xml) + self.weights.nbytes


class Graph:
    """Compute hidden states on the CPU, in any number of threads of the caller.

    Parameters
    ----------
    model : openvino.Model
    bfloat16 : bool
        Whether products that are not in int8 are in bfloat16, float32 otherwise.
    """

    def __init__(self, model: Any, bfloat16: bool) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # all threads compute one pass
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # it would pin every process to the same cores
        }
        self._compiled = imported("openvino").Core().compile_model(model, "CPU", settings)
        self._lock = RLock()  # a compiled model computes one pass at a time

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return the wanted hidden states, each of shape (n_rows, length, hidden_size).

        Parameters
        ----------
        input_ids, attention_mask : Tensor of shape (n_rows, length), dtype int64
        """
        with self._lock:
            outputs = self._compiled([input_ids.numpy(), attention_mask.numpy()])
        return [torch.from_numpy(array) for array in outputs.values()]


class _Wanted(nn.Module):
    """An encoder that returns a tuple of the wanted hidden states."""

    def __init__(self, encoder: PreTrainedModel, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        return wanted_states(output, self.layers, self.encoder.config.num_hidden_layers)


def imported(name: str) -> Any:
    """Import openvino or nncf.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    with _import_lock:
        reports = sys.modules.get("openvino_telemetry")
        if name not in sys.modules:
            sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"inference='openvino' needs {name}, which cannot be imported ({error}): install "
                f'it with pip install "sklearn-longbert[openvino]", or set inference="torch" and '
                f'precision="auto".'
            ) from error
        finally:
            sys.modules.pop("openvino_telemetry", None)
            if reports is not None:
                sys.modules["openvino_telemetry"] = reports


def make_graph(encoder: PreTrainedModel, layers: tuple[int, ...], bfloat16: bool) -> Graph:
    """Return the graph of an encoder.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        On the CPU.
    layers : tuple of int
        Numbers of the wanted hidden states.
    bfloat16 : bool
        Whether products are in bfloat16, float32 otherwise.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    ValueError
        If OpenVINO cannot compute the hidden states of this architecture.
    """
    return _converted(encoder, layers, bfloat16)[1]


def quantize(
    encoder: PreTrainedModel,
    layers: tuple[int, ...],
    bfloat16: bool,
    chunks: Sequence[NDArray[np.int32]],
) -> QuantizedGraph:
    """Return the graph of an encoder in int8.

    Parameters
    ----------
    encoder, layers, bfloat16
        See :func:`make_graph`.
    chunks : sequence of ndarray of shape (chunk_length,)
        Token ids of the chunks by which the ranges of activations are chosen.

    Raises
    ------
    ImportError, ValueError
        See :func:`make_graph`.

    References
    ----------
    https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html
    """
    openvino, nncf = imported("openvino"), imported("nncf")
    model, _ = _converted(encoder, layers, bfloat16)
    inputs = [
        {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]}
        for ids in (chunk.astype(np.int64) for chunk in chunks)
    ]
    with _silent(nncf), tempfile.TemporaryDirectory() as folder:
        model = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
        )
        xml = Path(folder, "graph.xml")
        openvino.save_model(model, xml, compress_to_fp16=False)
        weights = np.fromfile(xml.with_suffix(".bin"), dtype=np.uint8)
        return QuantizedGraph(xml.read_text(encoding="utf-8"), weights)


def make_quantized_graph(
    quantized: QuantizedGraph, n_layers: int, hidden_size: int, bfloat16: bool
) -> Graph:
    """Return the graph of an encoder in int8, ready to compute.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    ValueError
        If the graph does not compute as many hidden states of this size.
    """
    openvino = imported("openvino")
    weights = openvino.Tensor(np.ascontiguousarray(quantized.weights))
    try:
        model = openvino.Core().read_model(quantized.xml.encode(), weights)
        sizes = [output.get_partial_shape()[2].get_length() for output in model.outputs]
        if sizes != [hidden_size] * n_layers:
            raise ValueError(f"its outputs have the sizes {sizes}")
        return Graph(model, bfloat16)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The graph in int8 cannot be used ({str(error)[:500]}): fit anew, or set "
            f"precision='auto'."
        ) from error


def _converted(
    encoder: PreTrainedModel, layers: tuple[int, ...], bfloat16: bool
) -> tuple[Any, Graph]:
    """Return an encoder as a model of OpenVINO, and its graph, which agrees with torch."""
    openvino = imported("openvino")
    # a new one, because ours is prepared for packed chunks
    config = type(encoder.config).from_dict(encoder.config.to_dict())
    plain = rebuild_encoder(config, dtype=next(encoder.parameters()).dtype)
    plain.load_state_dict(encoder.state_dict(), assign=True)
    network = _Wanted(plain, layers).eval()
    rows = torch.zeros((2, 4), dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    try:
        with torch.no_grad(), silenced(), catch_warnings():
            simplefilter("ignore")  # the tracer warns of what the comparison below finds
            model = openvino.convert_model(
                network,
                example_input={"input_ids": rows, "attention_mask": mask},
                input=[("input_ids", [-1, -1]), ("attention_mask", [-1, -1])],
            )
        graph = Graph(model, bfloat16)
        difference = _difference(graph, network)
    except Exception as error:  # an architecture that it does not know raises errors of any kind
        raise _unsupported(encoder, f"{type(error).__name__}: {str(error)[:500]}") from error
    if not difference <= TOLERANCES[bfloat16]:
        raise _unsupported(encoder, f"its hidden states differ from torch's by {difference:.2g}")
    return model, graph


def _difference(graph: Graph, network: _Wanted) -> float:
    """Return the largest relative difference of hidden states between a graph and torch."""
    config = network.encoder.config
    most = encoder_limit(config) or max(PROBE_LENGTHS)
    lengths = torch.tensor([min(length, most) for length in PROBE_LENGTHS])
    rng = np.random.RandomState(0)
    shape = len(lengths), int(lengths.max())
    input_ids = torch.from_numpy(rng.randint(config.vocab_size, size=shape))
    mask = torch.arange(shape[1]) < lengths[:, None]
    with torch.no_grad():
        expected = network(input_ids, mask.long())
    found = graph(input_ids, mask.long())
    return max(
        float(torch.linalg.vector_norm((one - two)[mask]) / torch.linalg.vector_norm(two[mask]))
        for one, two in zip(found, expected, strict=True)
    )


def _unsupported(encoder: PreTrainedModel, reason: str) -> ValueError:
    return ValueError(
        f"OpenVINO cannot compute this encoder, a {encoder.config.model_type} ({reason}): set "
        f"inference='torch' and precision='auto'."
    )


@contextmanager
def _silent(nncf: Any) -> Iterator[None]:
    """Switch off NNCF's bars and its log of what it does, which cannot be chosen in its calls."""
    console = importlib.import_module("rich").get_console()
    logger = nncf.common.logging.nncf_logger
    before = console.quiet, logger.level
    console.quiet = True
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        console.quiet = before[0]
        logger.setLevel(before[1])
