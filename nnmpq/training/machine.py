"""What a run runs on."""

from __future__ import annotations

import attrs

from nnmpq.parallel import ALONE, Communicator
from nnmpq.training.scaling import LossScale


@attrs.frozen
class Machine:
    """What a run runs on, beside nnabla's current context.

    Args:
        accelerate: on a CPU, run on fast functions where this machine has them.
        communicator: of the processes that train together; the first one writes the files.
        scale: of the loss, for half precision.
        workers: processes that decode images in files, 0 for this process alone; the batches are the same.
    """

    accelerate: bool = True
    communicator: Communicator = ALONE
    scale: LossScale = attrs.field(factory=lambda: LossScale(dynamic=False))
    workers: int = attrs.field(default=0, validator=attrs.validators.ge(0))
