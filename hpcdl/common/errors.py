"""What can go wrong, and the exit status that says so.

Synopsis::

    raise BadInput("per_replica_batch_size must be positive; received 0; pass e.g. 128")
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
#: Stopped on purpose, with a checkpoint, in order to be started again (requeued).
EXIT_REQUEUE = 85
EXIT_INTERRUPTED = 130


class HpcdlError(Exception):
    """An error of hpcdl's own; its text is one line that a user can act on."""

    exit_status = EXIT_FAILED


class BadInput(HpcdlError):
    """The user's input breaks a rule: nothing was written. The text has the rule, the values, the way out."""

    exit_status = EXIT_BAD_INPUT


class Diverged(HpcdlError):
    """Ranks or replicas that must hold the same state do not."""
