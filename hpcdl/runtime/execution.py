"""How Keras runs the steps of a model: compiled by XLA or not, and how many in one call.

Synopsis::

    execution = Execution(model, replicas)
    execution.notices                            # what is done otherwise than the user compiled, to be said
    with attributes(model, **execution.overrides):
        model.fit(..., callbacks=[*execution.callbacks(steps_per_epoch, validation_steps)])
"""

from __future__ import annotations

import warnings
from typing import Any, Dict, List

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import compiles_by_choice_of_keras, is_keras_3, steps_per_execution
from hpcdl.runtime.replicas import Replicas


class Execution:
    """How the steps of a compiled model are run in a world.

    Args:
        model: Compiled.
        replicas: Of the run.
        by_xla: Whether the steps are to be compiled by XLA, whatever the model says.

    Attributes:
        overrides: Attributes of the model, for the time of the fit.
        notices: What a user should know of them.
        uses_xla: Whether steps are compiled by XLA.

    Raises:
        BadInput: The user asks for what cannot be.
    """

    def __init__(self, model: Any, replicas: Replicas, by_xla: bool = False) -> None:
        if by_xla:
            _compile_by_xla(model)
        self.overrides: Dict[str, Any] = {}
        self.notices: List[str] = []
        self._steps = steps_per_execution(model)
        self._is_keras_3 = is_keras_3(model.optimizer)
        if replicas.num_replicas > 1 and getattr(model, "jit_compile", False):
            if not compiles_by_choice_of_keras(model):
                raise BadInput(
                    "the exchange between replicas cannot be compiled by XLA; received a model compiled with"
                    " jit_compile=True; pass jit_compile=False to compile()"
                )
            self.overrides["_jit_compile"] = False
            self.notices.append(
                "XLA, which Keras chose, cannot compile the exchange; jit_compile is False here"
            )
        self.uses_xla = bool(self.overrides.get("_jit_compile", getattr(model, "jit_compile", False)))
        if getattr(model, "autotune_steps_per_execution", False):  # of Keras 2.13 to 2.15
            self.overrides["_autotune_steps_per_execution"] = False
            self.notices.append(
                "Keras would change steps_per_execution='auto' on each rank as its own clock has it; taken as"
                f" {self._steps}"
            )
        if self._is_keras_3 and self._steps > 1 and replicas.per_process > 1:
            self.notices.append(
                "Keras 3 runs one step per execution only where a process has several replicas; received"
                f" steps_per_execution={self._steps}, taken as 1"
            )
            self.overrides["steps_per_execution"] = self._steps = 1

    def callbacks(self, steps_per_epoch: int, validation_steps: int) -> List[Any]:
        """Gives the callbacks that it takes."""
        needs_none = not self._is_keras_3 or self._steps == 1
        return [] if needs_none else [_LastExecutions(self._steps, steps_per_epoch, validation_steps)]


class _LastExecutions(tf.keras.callbacks.Callback):
    """Ends an epoch's last execution with the epoch, as Keras 2 does; Keras 3 would run on into the next one."""

    def __init__(self, steps: int, steps_per_epoch: int, validation_steps: int) -> None:
        super().__init__()
        self._steps, self._of_epoch, self._of_validation = steps, steps_per_epoch, validation_steps
        self._functions: Dict[Any, Any] = {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._take("train", min(self._steps, self._of_epoch - batch))

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._take("test", min(self._steps, self._of_validation - batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.steps_per_execution = self._steps

    on_test_batch_end = on_train_batch_end

    def _take(self, kind: str, steps: int) -> None:
        """Puts a function of so many steps in place; it looks the number up in the model when it is traced."""
        self.model.steps_per_execution = steps
        if (kind, steps) not in self._functions:
            setattr(self.model, f"{kind}_function", None)
            getattr(self.model, f"make_{kind}_function")()
            self._functions[kind, steps] = getattr(self.model, f"{kind}_function")
        setattr(self.model, f"{kind}_function", self._functions[kind, steps])


def _compile_by_xla(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Keras goes on without: here that is refused
        model.jit_compile = True
    if not model.jit_compile:
        raise BadInput(
            f"--xla needs layers that XLA can compile; received {model.name}, which has others; leave it out"
        )
