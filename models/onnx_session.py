"""Opens sessions of ONNX Runtime that hold no more memory than they need."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime as ort

from models.onnx_file import FORMAT_OPTION


def session_options(*, threads: int, often: bool = False) -> ort.SessionOptions:
    """Returns options for a session with `threads` threads; 0 means one per core.

    A session that runs `often` keeps the memory of its tensors between runs. To map it anew for
    each picture costs a tenth of the detector's time.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = often
    # A pattern is one block for all tensors of a run. An arena would hold it beside the tensors of
    # the first run, which teaches the pattern.
    options.enable_mem_pattern = not often
    options.add_session_config_entry(*FORMAT_OPTION)
    return options


def open_session(
    model: bytes, options: ort.SessionOptions, providers: Sequence[str]
) -> ort.InferenceSession:
    """Opens a session of the bytes of a model; raises what ONNX Runtime raises."""
    session = ort.InferenceSession(model, options, providers=list(providers))
    # The wrapper keeps the model for `set_providers`, which nobody calls here.
    session._model_bytes = None  # noqa: SLF001
    return session
