"""Training: one pure step, one loop, optimizers, logs and sample grids."""

from jaxguide.training.loop import (
    Evaluate as Evaluate,
    Experiment as Experiment,
    LoopConfig as LoopConfig,
    Snapshot as Snapshot,
    run as run,
)
from jaxguide.training.optimizer import adamw as adamw, learning_rate as learning_rate
from jaxguide.training.preview import Preview as Preview
from jaxguide.training.step import (
    Inputs as Inputs,
    Loss as Loss,
    TrainState as TrainState,
    View as View,
    init_state as init_state,
    make_train_step as make_train_step,
)
from jaxguide.training.stop import (
    INTERRUPTED as INTERRUPTED,
    PREEMPTED as PREEMPTED,
    Stop as Stop,
)
from jaxguide.training.trajectories import cfg_trajectories as cfg_trajectories
