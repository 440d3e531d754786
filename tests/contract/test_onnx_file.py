"""ONNX models that need other files are refused, wherever the reference lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.language.text import TextEncoder
from models.onnx_file import FORMAT_OPTION, check_whole, read_onnx, read_regular
from models.vision.detector import Detector
from pipeline.errors import WeightsError


def tensor(name: str = "outside", *, whole: bool = False) -> TensorProto:
    made = helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
    if not whole:
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="beside.bin")
    return made


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    found = nodes or (helper.make_node("Identity", ["x"], ["y"]),)
    graph = helper.make_graph(list(found), "g", takes, gives)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def constant(value: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=value)


def deep() -> onnx.ModelProto:
    """A tensor in a branch in a branch in a branch."""
    node = constant(tensor())
    for _ in range(3):
        branch = helper.make_graph([node], "b", [], [])
        node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return model(node)


def initializer() -> onnx.ModelProto:
    made = model()
    made.graph.initializer.append(tensor())
    return made


def sparse(part: str) -> onnx.ModelProto:
    made = model()
    values = tensor("values", whole=part != "values")
    indices = tensor("indices", whole=part != "indices")
    made.graph.sparse_initializer.add(values=values, indices=indices, dims=[1])
    return made


def attribute(**fields: object) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(onnx.AttributeProto(name="a", **fields))
    return model(node)


def function() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="f", domain="d", output=["y"]).node.append(constant(tensor()))
    return made


def default_of_a_function() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="f", domain="d").attribute_proto.add(name="a", t=tensor())
    return made


def training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().algorithm.initializer.append(tensor())
    return made


def only_the_flag() -> onnx.ModelProto:
    made = initializer()
    made.graph.initializer[0].ClearField("external_data")
    return made


def only_the_place() -> onnx.ModelProto:
    made = initializer()
    made.graph.initializer[0].ClearField("data_location")
    return made


PLACES: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializer": initializer,
    "constant": lambda: model(constant(tensor())),
    "deep": deep,
    "sparse values": lambda: sparse("values"),
    "sparse indices": lambda: sparse("indices"),
    "tensors": lambda: attribute(tensors=[tensor("a", whole=True), tensor()]),
    "graphs": lambda: attribute(graphs=[initializer().graph]),
    "sparse tensor": lambda: attribute(sparse_tensor=onnx.SparseTensorProto(values=tensor())),
    "sparse tensors": lambda: attribute(sparse_tensors=[onnx.SparseTensorProto(values=tensor())]),
    "function": function,
    "default of a function": default_of_a_function,
    "training": training,
    "only the flag": only_the_flag,
    "only the place": only_the_place,
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_another_file_are_refused_wherever_they_are_named(place: str) -> None:
    with pytest.raises(WeightsError, match="weights in another file"):
        check_whole(PLACES[place]().SerializeToString())


def test_a_reference_that_a_later_part_of_the_file_hides_is_refused() -> None:
    """Protobuf joins a field that is there twice; the last number counts."""
    hidden = initializer().SerializeToString() + model().SerializeToString()
    with pytest.raises(WeightsError, match="weights in another file"):
        check_whole(hidden)


def test_a_compiled_engine_in_another_file_is_refused() -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0)
    with pytest.raises(WeightsError, match="compiled engine"):
        check_whole(model(node).SerializeToString())


def test_a_model_in_one_file_is_taken_whatever_its_parts_are_called() -> None:
    made = model()
    made.graph.initializer.append(tensor("location", whole=True))
    made.graph.node[0].name = "external_data"
    check_whole(made.SerializeToString())


def test_every_field_that_leads_to_a_tensor_is_known() -> None:
    """A newer ONNX may hold tensors where they are not looked for yet."""
    from models.onnx_file import _MESSAGES

    ours = {
        "ModelProto": "Model", "TrainingInfoProto": "Training", "FunctionProto": "Function",
        "GraphProto": "Graph", "NodeProto": "Node", "AttributeProto": "Attribute",
        "SparseTensorProto": "Sparse", "TensorProto": "Tensor",
    }  # fmt: skip
    for theirs, own in ours.items():
        fields = getattr(onnx, theirs).DESCRIPTOR.fields
        leading = {
            (field.number, ours[field.message_type.name])
            for field in fields
            if field.message_type is not None and field.message_type.name in ours
        }
        assert leading == {pair for pair in _MESSAGES[own].values() if pair[1] in _MESSAGES}
    theirs_too = {
        message.name
        for message in onnx.ModelProto.DESCRIPTOR.file.message_types_by_name.values()
        if any(f.message_type is not None and f.message_type.name in ours for f in message.fields)
    }
    assert theirs_too <= ours.keys()


def test_a_model_of_onnx_runtime_s_own_format_is_refused(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    saved = (tmp_path / "model.ort").read_bytes()
    assert saved[4:8] == b"ORTM"
    with pytest.raises(WeightsError, match="no ONNX model"):
        check_whole(saved)
    strict = onnxruntime.SessionOptions()
    strict.add_session_config_entry(*FORMAT_OPTION)
    with pytest.raises(Exception, match=r"(?i)protobuf"):  # the class has no stable name
        onnxruntime.InferenceSession(saved, strict, providers=["CPUExecutionProvider"])


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_otherwise_than_by_refusal(data: bytes) -> None:
    for given_bytes in (data, initializer().SerializeToString()[: len(data)] + data):
        try:
            check_whole(given_bytes)
        except WeightsError:
            continue


def test_a_graph_of_a_thousand_levels_is_refused() -> None:
    inner = b""
    for _ in range(1000):
        attribute_bytes = _field(6, inner)  # g
        inner = _field(1, _field(5, attribute_bytes))  # node, attribute
    with pytest.raises(WeightsError, match="no ONNX model"):
        check_whole(_field(7, inner))


def _field(number: int, data: bytes) -> bytes:
    size, length = len(data), b""
    while size >= 128:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def test_a_detector_and_a_text_model_with_weights_beside_them_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(
        (weights / "all-MiniLM-L6-v2-int8/tokenizer.json").read_bytes()
    )
    for source in ("yolox_nano/yolox_nano.onnx", "all-MiniLM-L6-v2-int8/model.onnx"):
        read = onnx.load(weights / source)
        onnx.save_model(
            read, tmp_path / "model.onnx",
            save_as_external_data=True, location="beside.bin", size_threshold=1024,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(
            tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
        )
        assert session.get_inputs()  # ONNX Runtime alone takes it
        load = Detector if source.startswith("yolox") else TextEncoder
        with pytest.raises(WeightsError, match="weights in another file"):
            load(tmp_path / "model.onnx" if load is Detector else tmp_path)
        (tmp_path / "beside.bin").unlink()


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(WeightsError, match=rf"{name}\.onnx cannot be read: it is no regular"):
            read_onnx(tmp_path / f"{name}.onnx")
    (tmp_path / "long").write_bytes(b"12345")
    assert read_regular(tmp_path / "long", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "long", 4)
