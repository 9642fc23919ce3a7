"""A private Slurm for the tests: two nodes on one machine, each with a network and a name of its own.

Everything runs inside namespaces of its own: no interface, mount or process of the machine is touched, and the kernel
ends all of it with the first process. Needs root and the packages that ``install`` fetches.

Synopsis::

    python -m tools.cluster install
    python -m tools.cluster run -- python -m pytest tests/cluster
"""
