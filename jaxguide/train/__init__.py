"""Training: one pure step, one loop, optimizers, logs and sample grids."""

from jaxguide.train.checkpoints import Checkpoints as Checkpoints
from jaxguide.train.ema import ema_decay as ema_decay, ema_update as ema_update
from jaxguide.train.experiment import (
    Experiment as Experiment,
    LoopConfig as LoopConfig,
)
from jaxguide.train.loop import (
    Evaluate as Evaluate,
    Snapshot as Snapshot,
    run as run,
)
from jaxguide.train.optimizer import adamw as adamw, learning_rate as learning_rate
from jaxguide.train.preview import Preview as Preview
from jaxguide.train.step import (
    Inputs as Inputs,
    Loss as Loss,
    TrainState as TrainState,
    View as View,
    init_state as init_state,
    make_train_step as make_train_step,
)
from jaxguide.train.stop import (
    INTERRUPTED as INTERRUPTED,
    PREEMPTED as PREEMPTED,
    Stop as Stop,
)
from jaxguide.train.trajectories import guided_trajectories as guided_trajectories
