"""The command line of the encoder, as a user meets it."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import data
from jaxguide.data import config as data_config, encode
from jaxguide.models import tiny_autoencoder
from jaxguide.models.autoencoders import Autoencoder, save_autoencoder
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from tests.drawn import drawn

FAST_COMPILE = True
CONFIG = str(Path(__file__).parents[2] / "configs" / "encode.py")


def call(monkeypatch, *words):
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["encode.py", f"--config={CONFIG}:tiny", *words])
    encode.main()


def half(images):
    """An encoder as a user may bring it: means over squares, no variance."""
    mean = images.reshape(-1, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    return jnp.concatenate([mean, jnp.full_like(mean, -jnp.inf)], axis=-1)


@pytest.mark.parametrize("format", ["npz", "array_record"])
def test_a_set_is_encoded_and_opened_for_training(
    monkeypatch, capsys, tmp_path, format
):
    words = [f"--config.folder={tmp_path}", f"--config.format={format}"]
    call(monkeypatch, *words)
    assert f"--config.data.path={tmp_path}" in capsys.readouterr().out
    settings = data_config.DataConfig(name="latents", path=str(tmp_path), flip=True)
    source = data_config.build_dataset(settings)
    assert len(source) == 1498 and source.is_latent
    assert source.image_shape == (2, 2, 16) and source.class_names[3] == "3"
    x0, label = data.batch(source, 5, batch_size=32, seed=0, flip=True)
    images, wanted = data.batch(data.digits(), 5, batch_size=32, seed=0, flip=True)
    np.testing.assert_array_equal(label, wanted)
    squares = x0.reshape(32, 2, 2, 4, 4, 1).transpose(0, 1, 3, 2, 4, 5)
    found = data.to_uint8(squares.reshape(32, 8, 8, 1))
    np.testing.assert_array_equal(found, data.to_uint8(images))


def test_an_encoder_may_be_anybodys_function(monkeypatch, tmp_path):
    name = f"{__name__}:half"
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    words = [f"--config.folder={tmp_path}", f"--config.encoder={name}"]
    call(monkeypatch, *words, "--config.scale=0.5", "--config.shift=0.25")
    cache = data.LatentCache(tmp_path, encoder=name)
    x0, _ = data.batch(cache, 0, batch_size=8, seed=0)
    images, _ = data.batch(data.digits(), 0, batch_size=8, seed=0)
    means = images.reshape(8, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(x0, (means - 0.25) * 0.5, atol=1e-3)


def test_a_converted_autoencoder_is_named_by_its_file(monkeypatch, tmp_path):
    architecture = TinyAutoencoderConfig(2, 4, (0, 1), (1, 0), channels=1)
    params = drawn(tiny_autoencoder.init, architecture)
    ours = Autoencoder(architecture, params, 0.5, 0.25)
    save_autoencoder(tmp_path / "vae.safetensors", ours)
    name = f"autoencoder(file='{tmp_path}/vae.safetensors')"
    folder = tmp_path / "latents"
    words = [f"--config.folder={folder}", f"--config.encoder={name}"]
    call(monkeypatch, *words, "--config.dtype=float32")
    cache = data.LatentCache(folder, encoder="autoencoder(vae.safetensors)")
    x0, _ = data.batch(cache, 0, batch_size=8, seed=0)
    images, _ = data.batch(data.digits(), 0, batch_size=8, seed=0)
    latents = tiny_autoencoder.encode(architecture, params, jnp.asarray(images))
    np.testing.assert_allclose(x0, (latents - 0.25) * 0.5, atol=1e-5)


def test_hosts_share_the_work_by_their_numbers(monkeypatch, capsys, tmp_path):
    words = [f"--config.folder={tmp_path}", "--num_processes=2"]
    call(monkeypatch, *words, "--process_id=1")
    assert "the files of host 1 are written" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("*.npz")] == [
        "moments-00001-of-00003.npz"
    ]
    call(monkeypatch, *words, "--process_id=0")
    assert len(data.LatentCache(tmp_path)) == 1498


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--config.encoder=vae"], "build_encoder: need a name in"),
        (["--config.encoder=space_to_depth(edge=2)"], "Did you mean 'factor'?"),
        (["--config.encoder=autoencoder(file='no')"], "need an existing file, got"),
        (["--config.encoder=numpy:no_such"], "which has no such function"),
        (["--config.encoder=space_to_depth(factor=3)"], "need edges that 3 divides"),
        (["--config.data.name=image_folder"], "need size >= 1, got size=0"),
        (["--config.data.name=imagenet"], "need size >= 1 for images of many sizes"),
        (["--config.data.name=latents"], "need a finished folder with manifest.json"),
        (["--config.data.name=made_latents"], "got is_latent=True"),
        (["--config.format=zip"], "need format in"),
        (["--num_processes=2"], "got process_id=-1, num_processes=2"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    monkeypatch, capsys, tmp_path, words, line
):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, f"--config.folder={tmp_path}", *words)
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert line in error and error.count("\n") == 1


def test_the_usage_names_the_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [encode.__file__])
    with pytest.raises(SystemExit, match="2"):
        encode.main()
    assert "Usage: python -m jaxguide.data.encode --config" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word",
    [
        "batch_size=-5",
        "batch_size=0",
        "shard_size=0",
        "dtype=int8",
        "format=zip",
        "encoder=autoencoder(file='x.safetensors', dtype='float8')",
        "encoder=nosuch",
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    monkeypatch, capsys, tmp_path, word
):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, f"--config.folder={tmp_path}/new", f"--config.{word}")
    line = capsys.readouterr().err.strip()
    assert left.value.code == 2 and "need" in line and "\n" not in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "numbers", [{"scale": np.nan}, {"scale": 0.0}, {"shift": -np.inf}]
)
def test_an_encoder_has_finite_numbers(numbers):
    with pytest.raises(ValueError, match="Encoder: need finite numbers"):
        data.Encoder("mine", half, **numbers)
