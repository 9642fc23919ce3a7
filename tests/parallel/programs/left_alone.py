"""Calls on rank 0 what all ranks do together, as scripts of Horovod's do what is rank 0's; the other one ends."""

import hpcdl

run = hpcdl.init()
if run.is_rank_0:
    run.barrier()
