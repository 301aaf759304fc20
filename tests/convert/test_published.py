"""Published layouts: there and back bit for bit, what they mean, what is refused."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from jaxguide import models
from jaxguide.convert import layouts, read_published, write_published
from jaxguide.convert.published import CONVENTIONS
from jaxguide.models import load_weights, save_weights
from jaxguide.models.weights import shapes

WIDTH, DEPTH, CLASSES = 24, 3, 5


def official(*, outputs=4, rows=CLASSES + 1, scale=False, projectors=False, edge=4):
    """Random arrays under the names of official-layout files."""
    rng, width = np.random.default_rng(0), WIDTH
    layers = {
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "final_layer.linear": (4 * outputs, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    if scale:
        layers |= {"s_embedder.mlp.0": (width, 256), "s_embedder.mlp.2": (width, width)}
    if projectors:
        layers |= {f"projectors.0.{i}": (8, 8) for i in (0, 2, 4)}
    for i in range(DEPTH):
        layers |= {
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.mlp.fc1": (4 * width, width),
            f"blocks.{i}.mlp.fc2": (width, 4 * width),
            f"blocks.{i}.adaLN_modulation.1": (6 * width, width),
        }
    shapes = {
        "pos_embed": (1, edge**2, width),
        "x_embedder.proj.weight": (width, 4, 2, 2),
        "x_embedder.proj.bias": (width,),
        "y_embedder.embedding_table.weight": (rows, width),
    }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def legacy(arrays, encoder_depth):
    """The same arrays as old files of REPA name them."""

    def name(old):
        head, number, *rest = old.split(".") if old.startswith("blocks.") else (old, "")
        if not number or int(number) < encoder_depth:
            return old
        return ".".join(["decoder_blocks", str(int(number) - encoder_depth), *rest])

    return {name(old): value for old, value in arrays.items()}


def in_diffusers():
    """Random arrays under the names of diffusers; the embedders of blocks are equal."""
    width, rng = WIDTH, np.random.default_rng(0)
    shapes = {
        "pos_embed.proj.weight": (width, 4, 2, 2),
        "pos_embed.proj.bias": (width,),
    }
    layers = {"proj_out_1": (2 * width, width), "proj_out_2": (32, width)}
    for i in range(DEPTH):
        block = f"transformer_blocks.{i}"
        embedder = f"{block}.norm1.emb"
        table = f"{embedder}.class_embedder.embedding_table.weight"
        shapes[table] = (CLASSES + 1, width)
        layers |= {
            f"{embedder}.timestep_embedder.linear_1": (width, 256),
            f"{embedder}.timestep_embedder.linear_2": (width, width),
            f"{block}.norm1.linear": (6 * width, width),
            **{f"{block}.attn1.to_{part}": (width, width) for part in "qkv"},
            f"{block}.attn1.to_out.0": (width, width),
            f"{block}.ff.net.0.proj": (4 * width, width),
            f"{block}.ff.net.2": (width, 4 * width),
        }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    arrays, copies = {}, {}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape).astype(np.float32)
        arrays[name] = copies.setdefault(name.split(".norm1.emb.")[-1], value)
    return arrays


LAYOUTS = {
    "dit": ("dit", lambda: official(outputs=8), {}),
    "sit": ("sit", official, {}),
    "sit, twice the channels": ("sit", lambda: official(outputs=8), {}),
    "sit, score": ("sit", official, {"kind": "score", "noise_path": "gvp"}),
    "repa": ("repa", official, {}),
    "repa-legacy": ("repa-legacy", lambda: legacy(official(), 1), {}),
    "mg": ("mg", lambda: official(scale=True), {}),
    "no null": ("mg", lambda: official(rows=CLASSES), {"num_classes": CLASSES}),
    "diffusers": ("diffusers-dit", in_diffusers, {"image_size": 8}),
}


def read(tmp_path, arrays, format, **options):
    save_file(arrays, str(tmp_path / "theirs.safetensors"))
    options.setdefault("heads", 2)
    return read_published(tmp_path / "theirs.safetensors", format, **options)


@pytest.mark.parametrize("name", LAYOUTS)
def test_there_and_back_is_the_same_bit_for_bit(tmp_path, name):
    format, make, options = LAYOUTS[name]
    arrays = make()
    weights = read(tmp_path, arrays, format, **options)
    leaves = traverse_util.flatten_dict(weights.params, sep=".")
    assert {n: v.shape for n, v in leaves.items()} == shapes(weights.model)
    # Through our own file, which has to keep all that the way back needs.
    save_weights(tmp_path / "ours.safetensors", weights, dtype="float32")
    loaded = load_weights(tmp_path / "ours.safetensors")
    assert loaded[1:] == weights[1:]
    write_published(tmp_path / "back.safetensors", loaded, format)
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == arrays.keys()
    for key, value in arrays.items():
        assert value.tobytes() == back[key].tobytes(), key


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_value_of_ours_comes_from_theirs_once(tmp_path, name):
    format, make, options = LAYOUTS[name]
    weights = read(tmp_path, make(), format, **options)
    leaves = traverse_util.flatten_dict(weights.params, sep=".")
    if format == "diffusers-dit":
        leaves.pop("pos_embed")  # computed, as diffusers does
    if name == "no null":
        assert np.isnan(leaves["label_table"][-1]).all()
        leaves["label_table"] = leaves["label_table"][:-1]
    values = np.concatenate([np.abs(leaf).ravel() for leaf in leaves.values()])
    theirs = {v.tobytes(): np.abs(v).ravel() for v in make().values()}
    theirs = np.concatenate(list(theirs.values()))
    np.testing.assert_array_equal(np.sort(values), np.sort(theirs))


def test_what_a_format_means_comes_along(tmp_path):
    weights = read(tmp_path, official(outputs=8), "dit")
    model = weights.model
    assert (weights.kind, weights.path, weights.guided_channels) == ("noise", "ddpm", 3)
    assert (model.time_scale, model.time_offset, model.learn_sigma) == (1000, -1, True)
    assert model.image_shape == (8, 8, 4) and model.num_classes == CLASSES
    assert weights.latents == "sd-vae-ft-ema" and len(weights.class_names) == CLASSES
    weights = read(tmp_path, official(), "sit", noise_path="vp")
    assert (weights.kind, weights.path, weights.guided_channels) == (
        "velocity",
        "vp",
        3,
    )
    assert (weights.model.time_scale, weights.model.time_offset) == (-1, 1)
    weights = read(tmp_path, official(scale=True, projectors=True), "mg")
    assert (weights.kind, weights.guided_channels) == ("velocity", 0)
    assert (weights.model.time_scale, weights.model.time_offset) == (1, 0)
    assert weights.model.inputs == ("scale",)


def test_legacy_files_are_the_same_network(tmp_path):
    new = read(tmp_path, official(), "repa")
    for depth in (1, DEPTH):
        arrays = legacy(official(), depth) | {"projectors.0.0.bias": np.ones(3)}
        old = read(tmp_path, arrays, "repa-legacy")
        assert old.model == new.model
        jax.tree.map(np.testing.assert_array_equal, old.params, new.params)


def test_published_sizes_have_the_published_counts():
    """675,129,632 values of DiT-XL/2, 676,014,368 at 512; so the reference counts."""
    counts = {
        ("S/2", 32, True): 32_963_360,
        ("XL/2", 32, True): 675_129_632,
        ("XL/2", 32, False): 675_111_184,
        ("XL/2", 64, True): 676_014_368,
    }
    for (name, size, learn_sigma), count in counts.items():
        model = models.dit_config(name, image_size=size, learn_sigma=learn_sigma)
        arrays = layouts.official(model)
        assert sum(int(np.prod(array.shape)) for array in arrays) == count
    assert len(arrays) == 292  # of XL


def test_a_pipeline_brings_its_classes_and_its_noise_path(tmp_path):
    weights = read(tmp_path, in_diffusers(), "diffusers-dit", image_size=8)
    write_published(tmp_path / "pipe" / "transformer", weights, "diffusers-dit")
    names = {"0": "a, b", "1": "c", "2": "d", "3": "e", "4": "f"}
    index = {"transformer": ["diffusers", "DiTTransformer2DModel"], "id2label": names}
    (tmp_path / "pipe" / "model_index.json").write_text(json.dumps(index))
    again = read_published(tmp_path / "pipe", "diffusers-dit")
    assert again.class_names == ("a", "c", "d", "e", "f")
    assert again.model == weights.model
    scheduler = tmp_path / "pipe" / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    scheduler.write_text('{"beta_schedule": "scaled_linear"}')
    with pytest.raises(ValueError, match="need {'beta_schedule': 'linear'} in sched"):
        read_published(tmp_path / "pipe", "diffusers-dit")


def test_pickled_files_are_written_and_read(tmp_path):
    torch = pytest.importorskip("torch", reason=".pt files are PyTorch's")
    arrays = official()
    weights = read(tmp_path, arrays, "sit")
    write_published(tmp_path / "a.pt", weights, "sit")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    for name, value in arrays.items():
        np.testing.assert_array_equal(state[name].numpy(), value)
    again = read_published(tmp_path / "a.pt", "sit", heads=2)
    jax.tree.map(np.testing.assert_array_equal, again.params, weights.params)


def test_the_storage_type_may_be_half(tmp_path):
    weights = read(tmp_path, official(), "repa", dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(weights.params)} == {"bfloat16"}


REFUSED = {
    "need an array x_embedder.*published diffusers-dit": (
        in_diffusers,
        "dit",
        {},
    ),
    "need an array pos_embed.proj.*published dit or": (
        official,
        "diffusers-dit",
        {},
    ),
    "need heads for width 24": (official, "sit", {"heads": 0}),
    "need image_size for": (in_diffusers, "diffusers-dit", {}),
    "need num_classes 5 or 6": (official, "sit", {"num_classes": 4}),
    "need a name in .*'heads'.*got name='head'": (official, "sit", {"head": 3}),
    "need 5 class_names, got 1": (official, "sit", {"class_names": ("a",)}),
    "6 extra .projectors.0.0": (lambda: official(projectors=True), "sit", {}),
    "2 missing .decoder_blocks.0": (
        lambda: {
            name: value
            for name, value in legacy(official(), 1).items()
            if not name.startswith("decoder_blocks.0.attn.qkv")
        },
        "repa-legacy",
        {},
    ),
    "1 of another shape .pos_embed .1, 16, 24. instead of .1, 36, 24": (
        official,
        "sit",
        {"image_size": 12},
    ),
    "with 1 or 2 outputs per input, got 3": (lambda: official(outputs=12), "dit", {}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, words):
    make, format, options = REFUSED[words]
    with pytest.raises(ValueError, match=words) as error:
        read(tmp_path, make(), format, **options)
    assert "\n" not in str(error.value)


def test_diffusers_with_different_embedders_has_no_equal_here(tmp_path):
    arrays = in_diffusers()
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias"
    arrays[name] = arrays[name] + 1
    with pytest.raises(ValueError, match=f"need {name} equal to transformer_blocks.0"):
        read(tmp_path, arrays, "diffusers-dit", image_size=8)


@pytest.mark.parametrize("format", sorted(set(CONVENTIONS) - {"sit"}))
def test_weights_of_another_convention_are_not_written(tmp_path, format):
    weights = read(tmp_path, official(), "sit")
    words = f"need weights with .*'time_scale'.* for format='{format}'"
    with pytest.raises(ValueError, match=words):
        write_published(tmp_path / "a.safetensors", weights, format)
    scaled = read(tmp_path, official(scale=True), "mg")
    with pytest.raises(ValueError, match="'inputs': ()"):
        write_published(tmp_path / "a.safetensors", scaled, "repa")
