"""What our weight files say of themselves, held against their arrays."""

import dataclasses
import stat

import jax
import numpy as np
import pytest

from jaxguide.convert import feature_networks
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.models import load_weights, save_weights
from jaxguide.models.autoencoders import load_autoencoder
from tests import odd_files
from tests.odd_files import sound, with_about, with_arrays

LOAD = {
    "weights": load_weights,
    "kl": load_autoencoder,
    "tiny": load_autoencoder,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Bytes of sound files."""
    folder = tmp_path_factory.mktemp("sound")
    return {kind: sound(folder, kind) for kind in LOAD}


def refused(kind, path, words, error=InputError):
    with pytest.raises(error, match=words) as caught:
        LOAD[kind](path)
    text = str(caught.value)
    assert "\n" not in text and repr(str(path)) in text and len(text) < 900, text


def setting(part, **fields):
    """A change of the header's `part`; the header itself for ""."""

    def change(about):
        (about[part] if part else about).update(fields)

    return change


def without(part, name):
    def change(about):
        del (about[part] if part else about)[name]

    return change


HEADERS = [
    ("weights", setting("model", width=48), "width=48, .* header and width=24"),
    ("weights", setting("model", num_classes=500), "num_classes=500, got 5 class_n"),
    (
        "weights",
        lambda a: a.update(class_names=["a"], model=a["model"] | {"num_classes": 1}),
        "num_classes=1 in the header and num_classes=5 in the arrays",
    ),
    ("weights", setting("model", depth=3), "depth=3 in the header and depth=2"),
    ("weights", setting("model", patch=4), r"patch\^2 \* channels=64, .* channels=16"),
    ("weights", setting("model", channels=3), "channels=12, .* channels=16, "),
    ("weights", setting("model", heads=5), "a multiple of 4 and of heads=5"),
    ("weights", setting("model", heads=0), "need heads >= 1, got heads=0"),
    ("weights", setting("model", image_size=[8, 16]), "patches of an image=32 in .*16"),
    ("weights", setting("model", image_size=[[8], 8]), "need image_size an integer"),
    ("weights", setting("model", mlp_ratio=2), r"width \* mlp_ratio=48 in .*96"),
    ("weights", setting("model", learn_sigma=True), "doubles them.=32 in .*16"),
    ("weights", setting("model", inputs=["scale"]), r"inputs=\['scale'\] in .*\[\]"),
    ("weights", setting("model", width="24"), "an integer for width, got width='24'"),
    ("weights", setting("model", depth=2.0), "an integer for depth, got depth=2.0"),
    ("weights", setting("model", time_scale=float("nan")), "need time_scale finite"),
    ("weights", setting("model", wide=3), "got name='wide'. Did you mean 'width'"),
    ("weights", without("model", "depth"), "need depth"),
    ("weights", without("", "model"), "need model of type dict, got model=none"),
    ("weights", without("", "path"), "need path of type str"),
    ("weights", setting("", model=[1]), r"need model of type dict, got model=\[1\]"),
    ("weights", setting("", path="lineer"), "Did you mean 'linear'"),
    ("weights", setting("", kind="noisy"), "Did you mean 'noise'"),
    ("weights", setting("", class_names=[1, 2, 3, 4, 5]), "a class name for each"),
    ("weights", setting("", guided_channels=9), "from 0 to channels=4"),
    ("weights", setting("", format="other"), "got format='other'"),
    ("weights", lambda about: [about], r"need a JSON object in the header, got \[\{"),
    ("tiny", setting("config", width=8), "width=8, .*width=4"),
    ("tiny", setting("config", latent_channels=3), "output channels=3, .* channels=4"),
    ("tiny", setting("config", encoder_blocks=[1, 1]), r"=\(1, 1\) in .*=\(0"),
    ("tiny", setting("config", pooled=True), "missing .*pool"),
    ("tiny", setting("", scale=0), "need scale > 0"),
    ("tiny", setting("", scale=float("nan")), "need a finite scale"),
    ("tiny", setting("", shift=10**400), "need a finite shift"),
    ("weights", setting("model", time_offset=10**400), "need time_offset finite"),
    ("tiny", setting("", kind="tinny"), "Did you mean 'tiny'"),
    ("kl", setting("config", widths=[8, 16]), r"widths=\(8, 16\), .*widths=\(8, 8\)"),
    ("kl", setting("config", layers=2), "layers=2, .*layers=1"),
    ("kl", setting("config", groups=3), "of multiples of groups=3"),
    ("kl", setting("config", quant_conv=False), "quant_conv=False in .*=True"),
    ("kl", setting("config", latent_channels=8), "latent_channels=16, .*=8"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_a_header_is_held_against_the_arrays(tmp_path, files, number):
    kind, change, words = HEADERS[number]
    path = tmp_path / "odd.safetensors"
    path.write_bytes(with_about(files[kind], change))
    refused(kind, path, words)


def renamed(arrays):
    first = next(iter(arrays))
    return {(f"{n}.x" if n == first else n): v for n, v in arrays.items()}


def poisoned(arrays):
    arrays[next(iter(arrays))].flat[1:3] = np.inf


ARRAYS = {
    "1 missing .*1 extra": renamed,
    "1 extra .more": lambda arrays: arrays | {"more": np.ones(2, np.float32)},
    "need arrays of float32, .* int8": lambda a: {
        n: v.astype("int8") for n, v in a.items()
    },
    "got 2 of .* values .* infinite": poisoned,
    "got no arrays that show": lambda a: {"a": np.ones(1)},
}


@pytest.mark.parametrize("words", ARRAYS)
@pytest.mark.parametrize("kind", LOAD)
def test_arrays_are_those_of_the_header(tmp_path, files, kind, words):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(with_arrays(files[kind], ARRAYS[words]))
    refused(kind, path, words if words[0] != "1" else f"{words}|no arrays that show")


def test_sound_files_are_read(tmp_path, files):
    path = tmp_path / "sound.safetensors"
    for kind, load in LOAD.items():
        path.write_bytes(files[kind])
        params = load(path).params
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_half_an_autoencoder_is_read(tmp_path, files):
    path = tmp_path / "half.safetensors"

    def decoder(arrays):
        return {n: v for n, v in arrays.items() if n.startswith("decoder.")}

    path.write_bytes(with_arrays(files["tiny"], decoder))
    assert list(load_autoencoder(path).params) == ["decoder"]


def test_a_file_of_somebody_else_says_how_it_is_converted(tmp_path, files):
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(sound(tmp_path, "published"))
    refused("weights", path, "looks like .* sit .*python -m jaxguide.convert --from")
    path.write_bytes(files["tiny"])
    refused("weights", path, "It holds an autoencoder: load_autoencoder")
    path.write_bytes(files["weights"])
    refused("tiny", path, "It holds weights to sample: load_weights")
    with pytest.raises(InputError, match="It holds weights to sample"):
        feature_networks.load_features("inception", path)
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    refused("weights", path, "looks like PyTorch's: python -m jaxguide.convert")


def test_no_value_is_written_that_is_no_number(tmp_path):
    weights, path = odd_files.weights(), tmp_path / "w.safetensors"
    weights.params["patch_out"]["bias"][0] = 1e6
    with pytest.raises(NonFiniteError, match="1 of 16 .* float16, in patch_out.bias"):
        save_weights(path, weights)
    assert not list(tmp_path.iterdir())
    save_weights(path, weights, dtype="float32")
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1
    weights.params["patch_out"]["bias"][0] = 0
    weights.params["label_table"][-1] = np.nan
    with pytest.raises(NonFiniteError, match="24 of 144 .* in label_table"):
        save_weights(path, weights)
    # A published table without a row for "no class" has none.
    weights.note["null_row"] = False
    save_weights(path, weights)
    assert np.isnan(load_weights(path).params["label_table"][-1]).all()


def test_networks_say_whether_they_take_a_scale():

    takes = [
        dataclasses.replace(odd_files.MODEL, inputs=inputs).takes_scale
        for inputs in ((), ("scale",), ("beta",), ("duration",))
    ]
    assert takes == [False, True, True, False]


MORE = [pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 20)]


@pytest.mark.parametrize("seed", [0, *MORE])
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path, seed):
    rng, refusals = np.random.default_rng(seed), 0
    for name, path in odd_files.weight_files(tmp_path, rng, 80, ("weights", "tiny")):
        try:
            loaded = LOAD[name.split(",")[0] if "," in name else "weights"](path)
        except InputError as error:
            assert "\n" not in str(error), name
            refusals += 1
            continue
        leaves = jax.tree.leaves(loaded.params)
        assert all(np.isfinite(leaf).all() for leaf in leaves), name
    assert refusals > 80
