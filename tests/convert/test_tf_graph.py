"""A frozen graph, written by Google's protocol buffers, read without TensorFlow."""

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from jaxguide.convert import feature_networks
from jaxguide.convert.tensors import open_tensors
from jaxguide.models import inception
from tests.evaluate import made_networks

FAST_COMPILE = True
# The messages of TensorFlow that hold constants: field, number, type.
MESSAGES = {
    "Dim": [("size", 1, "int64"), ("name", 2, "string")],
    "Shape": [("dim", 2, "[Dim]")],
    "Tensor": [
        ("dtype", 1, "int32"),
        ("shape", 2, "Shape"),
        ("version", 3, "int32"),
        ("content", 4, "bytes"),
        ("float_val", 5, "[float]"),
    ],
    "Value": [("f", 4, "float"), ("type", 6, "int32"), ("tensor", 8, "Tensor")],
    "Entry": [("key", 1, "string"), ("value", 2, "Value")],
    "Node": [
        ("name", 1, "string"),
        ("op", 2, "string"),
        ("input", 3, "[string]"),
        ("attr", 5, "[Entry]"),
    ],
    "Graph": [("node", 1, "[Node]"), ("version", 3, "int32")],
}


def graph_class():
    """The class of graphs, made from `MESSAGES`."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for part, number, kind in fields:
            label = field.LABEL_REPEATED if kind[0] == "[" else field.LABEL_OPTIONAL
            made = message.field.add(name=part, number=number, label=label)
            kind = kind.strip("[]")
            if kind in MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Graph"))


def add_constant(graph, name: str, value: np.ndarray, dtype: int = 1) -> None:
    """A constant as TensorFlow writes it: small ones as numbers, others as bytes."""
    node = graph.node.add(name=name, op="Const")
    node.attr.add(key="dtype").value.type = dtype
    tensor = node.attr.add(key="value").value.tensor
    tensor.dtype = dtype
    for size in value.shape:
        tensor.shape.dim.add(size=size)
    if value.size < 3 and dtype == 1:
        tensor.float_val.extend(value.ravel().tolist())
    else:
        tensor.content = value.tobytes()


def test_constants_come_back_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    large = rng.standard_normal((2, 3, 300, 5), np.float32)
    graph = graph_class()(version=21)
    graph.node.add(name="Mul", op="Mul", input=["large", "factor"])
    add_constant(graph, "large", large)
    add_constant(graph, "pair", np.array([1.5, -2.0], np.float32))
    add_constant(graph, "factor", np.float32(0.0078125)[()].reshape(()))
    add_constant(graph, "sizes", np.array([299, 299], np.int32), dtype=3)
    graph.node.add(name="pair", op="Identity").attr.add(key="rate").value.f = 2.0
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.SerializeToString())
    tensors = open_tensors(path)
    assert tensors.names == ("large", "pair")
    assert tensors.shape("large") == large.shape
    np.testing.assert_array_equal(tensors.get("large"), large)
    np.testing.assert_array_equal(tensors.get("pair"), [1.5, -2.0])


@pytest.mark.parametrize("content", [b"\x0a\xff\x01short", b"PK\x03\x04", b"\x0a\xff"])
def test_what_is_no_graph_is_named(tmp_path, content):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="need a frozen TensorFlow graph, got path="):
        open_tensors(path)


@pytest.mark.exhaustive
def test_inceptions_graph_gives_the_parameters_of_the_pytorch_file(tmp_path):
    state, graph = made_networks.inception_state(), graph_class()()
    for place, name in inception.graph_names().items():
        theirs = ".".join(place)
        kernel = state[f"{theirs}.conv.weight"].transpose(2, 3, 1, 0)
        add_constant(graph, f"{name}/conv2d_params", kernel)
        norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
        for graphs, torchs in {**norm, "moving_variance": "running_var"}.items():
            add_constant(
                graph, f"{name}/batchnorm/{graphs}", state[f"{theirs}.bn.{torchs}"]
            )
    add_constant(graph, "softmax/weights", state["fc.weight"].T)
    add_constant(graph, "softmax/biases", state["fc.bias"])
    path = tmp_path / "classify_image_graph_def.pb"
    path.write_bytes(graph.SerializeToString())
    params = feature_networks.load_features("inception", path)
    tower = params["Mixed_6d"]["branch7x7dbl_3"]
    wanted = feature_networks.folded(
        state, "Mixed_6d.branch7x7dbl_3.conv", "Mixed_6d.branch7x7dbl_3.bn"
    )
    np.testing.assert_array_equal(tower["kernel"], wanted["kernel"])
    np.testing.assert_array_equal(tower["bias"], wanted["bias"])
    np.testing.assert_array_equal(params["classes"]["kernel"], state["fc.weight"].T)


# One convolution of every kind of branch, as the graph of 2015 is known to name it.
NAMES = {
    ("Conv2d_4a_3x3",): "conv_4",
    ("Mixed_5b", "branch1x1"): "mixed/conv",
    ("Mixed_5b", "branch5x5_2"): "mixed/tower/conv_1",
    ("Mixed_5d", "branch3x3dbl_3"): "mixed_2/tower_1/conv_2",
    ("Mixed_6a", "branch3x3"): "mixed_3/conv",
    ("Mixed_6a", "branch3x3dbl_3"): "mixed_3/tower/conv_2",
    ("Mixed_6d", "branch7x7_3"): "mixed_6/tower/conv_2",
    ("Mixed_6d", "branch7x7dbl_5"): "mixed_6/tower_1/conv_4",
    ("Mixed_6e", "branch_pool"): "mixed_7/tower_2/conv",
    ("Mixed_7a", "branch3x3_2"): "mixed_8/tower/conv_1",
    ("Mixed_7a", "branch7x7x3_4"): "mixed_8/tower_1/conv_3",
    ("Mixed_7b", "branch3x3_2b"): "mixed_9/tower/mixed/conv_1",
    ("Mixed_7c", "branch3x3dbl_3a"): "mixed_10/tower_1/mixed/conv",
    ("Mixed_7c", "branch_pool"): "mixed_10/tower_2/conv",
}


def test_the_graphs_names_are_those_of_2015():
    found = inception.graph_names()
    assert len(found) == len(set(found.values())) == 94
    assert {place: found[place] for place in NAMES} == NAMES
