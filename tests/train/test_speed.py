"""What a run says about its cost and its speed."""

import pytest

from jaxguide import data, models
from jaxguide.train import config
from jaxguide.train.loss_config import LossConfig
from jaxguide.train.speed import PEAK_FLOPS, Work, peak_flops


def test_the_longest_name_counts():
    assert peak_flops("TPU v5 lite") == PEAK_FLOPS["TPU v5 lite"]
    assert peak_flops("TPU v5p") == PEAK_FLOPS["TPU v5"]
    assert peak_flops("NVIDIA A100-SXM4-40GB") == 312e12
    assert peak_flops("cpu") is None


def test_rates_follow_from_the_speed():
    work = Work(parameters=10, flops=4e12, examples=32, devices=2, peak=1e12)
    numbers = work.rates(0.25)
    assert numbers["images_per_second"] == 8
    assert numbers["flops_per_second"] == 1e12
    assert numbers["model_flops_utilisation"] == 0.5
    assert "4e+12 FLOPs per step of 32 images" in str(work)


def test_what_is_not_known_is_not_made_up():
    assert set(Work(1, 0.0, 8).rates(1.0)) == {"images_per_second"}
    assert "model_flops_utilisation" not in Work(1, 1e9, 8).rates(1.0)
    assert "peak FLOP/s unknown" in str(Work(1, 1e9, 8))
    assert "FLOPs unknown per step" in str(Work(1, 0.0, 8))


@pytest.mark.parametrize(
    ("loss", "passes"),
    [
        (LossConfig(), 3),
        (LossConfig(name="model_guidance"), 5),
        (LossConfig(name="model_guidance", reference="mean", label_drop=0.0), 14),
        (LossConfig(name="gft"), 4),
    ],
)
def test_a_step_is_three_passes_and_its_teachers(loss, passes):
    settings = config.TrainConfig(loss=loss)
    dataset = data.digits()
    model = config.build_model(settings, dataset)
    experiment = config.build_experiment(settings, dataset)
    assert experiment.flops == passes * models.flops(model)[0]
