"""From the words of ``hpcdl submit`` to a job: layout, frozen description, submitit, and the keeper on the host."""
