"""Training that is asked to end before its last step."""

from transformers import TrainerCallback

from common.files import UserError
from common.job import Sigterm


class SaveOnSigterm(TrainerCallback):
    """Save a checkpoint after the step in which SIGTERM came, and end the training with a UserError.

    transformers' own `enable_jit_checkpoint` saves within a step, when random states have moved on but weights have
    not, and marks the training as finished: a resumed run would end elsewhere, or at once.

    Args:
        sigterm: entered around the training.
    """

    def __init__(self, sigterm: Sigterm):
        self.sigterm = sigterm

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint, unless one comes after the evaluation of the epoch: that must not be left out."""
        if self.sigterm.came and not (args.save_strategy == "epoch" and float(state.epoch).is_integer()):
            control.should_save = True
        return control

    def on_save(self, args, state, control, **kwargs):
        """End the training, unless it has just ended by itself."""
        if self.sigterm.came and not control.should_training_stop:
            raise UserError(
                f"training: stopped by SIGTERM (preemption or time limit) after step {state.global_step} of "
                f"{state.max_steps}. A checkpoint is saved; the next attempt goes on from there."
            )
        return control
