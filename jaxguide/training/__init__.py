"""Training: one pure step, one loop, optimizers, logs and sample grids."""

from jaxguide.training.loop import Experiment as Experiment
from jaxguide.training.loop import LoopConfig as LoopConfig
from jaxguide.training.loop import Snapshot as Snapshot
from jaxguide.training.loop import run as run
from jaxguide.training.optimizer import adamw as adamw
from jaxguide.training.optimizer import learning_rate as learning_rate
from jaxguide.training.preview import Preview as Preview
from jaxguide.training.preview import write_grid as write_grid
from jaxguide.training.step import Loss as Loss
from jaxguide.training.step import TrainState as TrainState
from jaxguide.training.step import init_state as init_state
from jaxguide.training.step import make_train_step as make_train_step
