"""hpcdl takes a Keras model from a laptop script to a multi-node job, and shows how well it scaled.

Synopsis::

    import hpcdl
    run = hpcdl.init()
    with run.scope():
        model = build()                       # any compiled Keras model, with a plain Keras optimizer
    run.fit(model, x_train, y_train, per_replica_batch_size=128, epochs=12)
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["BadInput", "Diverged", "HpcdlError", "__version__", "init", "load_data"]


def __getattr__(name: str) -> Any:
    # TensorFlow must not be loaded by `import hpcdl`: the command line answers in a blink, and devices are pinned
    # before TensorFlow looks at them.
    if name == "init":
        import os

        from hpcdl.runtime import backend, uncaught

        # The next import loads TensorFlow, and that loads Keras.
        uncaught.install()
        keras = backend.version_of_keras()
        backend.check_release(os.environ, keras)
        backend.check_backend(os.environ, keras)
        from hpcdl.runtime.training import init

        return init
    if name == "load_data":
        from hpcdl.runtime.datasets import load_data

        return load_data
    if name in ("BadInput", "Diverged", "HpcdlError"):
        from hpcdl.common import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
