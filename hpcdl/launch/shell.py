"""The command ``hpcdl shell``: a shell inside the site's image, on a node of the cluster.

Synopsis::

    hpcdl shell --site bridges2 -t 1:00:00 -A abc123p --gpus-per-node 1 --dry-run
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, NoReturn, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OptionParser, changed, option, retold, switch, take, to_argv
from hpcdl.common.saying import say
from hpcdl.common.words import RunSettings
from hpcdl.launch.amounts import hours_of
from hpcdl.launch.config import Config, read_config
from hpcdl.launch.container import enter_argv, find_image
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Profile, Site
from hpcdl.launch.submission.job import run_folders, typed_cwd
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.lib import keep_lib, lib_folder
from hpcdl.launch.submission.words import JobOptions, one_line
from hpcdl.launch.tried_images import read_tried

_NO_JOB = "hpcdl shell passes on what says which nodes, and for how long"
#: What a site's own command, in place of salloc, is not known to take.
_OF_SALLOC = ("cpus_per_task", "mem", "constraint", "exclusive", "reservation", "sbatch_arg")


@dataclass(frozen=True)
class ShellJobOptions(JobOptions):
    """salloc's own words."""

    refused = {
        **{name: (_NO_JOB, "leave it out") for name in ("oversubscribe", "no_requeue", "max_requeues")},
        **{
            name: (_NO_JOB, "leave it out, or add it to what --dry-run prints")
            for name in ("job_name", "dependency", "mail_user", "mail_type")
        },
    }

    np: Optional[int] = retold(JobOptions, "np", "ask for N tasks in all (default: one on each node)")
    sbatch_arg: Tuple[str, ...] = retold(
        JobOptions, "sbatch_arg", "pass this option on to salloc; may be repeated"
    )


@dataclass(frozen=True)
class ShellOptions:
    """Where the shell is, and inside what."""

    site: Optional[str] = option(
        None, "NAME", "at site NAME (default: of config.toml, else the host name tells)", one_line
    )
    image: Optional[str] = option(
        None, "FILE", "inside this image; none: without one (default: the site's newest)", one_line
    )
    dry_run: bool = switch("print the commands; run nothing")


@dataclass(frozen=True)
class Way:
    """The way in.

    Attributes:
        allocate: The command that asks for nodes; () where there is no scheduler.
        enter: The command that enters the image there.
        is_typed: Whether the user types the second one: the site's own interactive command takes none.
    """

    allocate: Tuple[str, ...]
    enter: Tuple[str, ...]
    is_typed: bool = False

    def lines(self) -> List[str]:
        """Writes the commands, a line each, as they can be pasted."""
        if self.is_typed:
            return [shlex.join(self.allocate), shlex.join(self.enter)]
        return [shlex.join((*self.allocate, *self.enter))]


def plan_shell(
    profile: Profile,
    options: JobOptions,
    account: Optional[str],
    image: Optional[str],
    cwd: str,
    lib: str,
    partition: Optional[str] = None,
) -> Way:
    """Plans the way in; nothing is run.

    Args:
        profile: The site.
        options: What the user asks of sbatch; salloc takes the same words.
        account: The account that pays.
        image: The image; None: without one.
        cwd: Working folder.
        lib: Folder with the half of hpcdl that ranks need.
        partition: The user's own default.

    Raises:
        BadInput: The site does not have or allow that.
    """
    site = profile.site
    # One process on each node, with all that the job has there.
    alone = dataclasses.replace(options, np=options.np or options.nodes)
    if site.interactive is not None:
        _refuse_words_of_salloc(site, options)
        alone = dataclasses.replace(alone, cpus_per_task=1, mem="0")  # which nobody is asked for
    layout = lay_out(profile, alone, RunSettings(), "gloo", partition)
    names = [f"PYTHONPATH={lib}", "PYTHONNOUSERSITE=1"]
    if image is None:
        inner = ["env", *names, "bash"]
    else:
        folders = run_folders(Path(lib), cwd, None, None)
        inside = enter_argv(
            site.container, image, folders=folders, cwd=cwd, with_gpus=layout.gpus_per_node > 0
        )
        inner = [*inside, "env", *names, "bash"]
    if site.scheduler == "none":
        return Way((), tuple(inner))
    asked = _salloc_words(profile, layout, options, account)
    srun = [
        "srun",
        "--nodes=1",
        "--ntasks=1",
        "--overlap",
        "--cpu-bind=none",
        "--gpu-bind=none",
        "--mpi=none",
    ]
    if layout.gpus_per_node and site.gpu_request == "gpus-per-task":
        srun.append(f"--gpus-per-task={layout.gpus_per_node}")
    if site.interactive is not None:
        return Way((site.interactive, *asked), tuple(inner), is_typed=True)
    return Way(("salloc", *asked), (*srun, "--pty", *inner))


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl shell ARGV``; becomes the shell, so it returns from a dry run only.

    Raises:
        BadInput: The words are wrong, or the site does not allow them.
    """
    groups = {"the job (salloc's own words)": ShellJobOptions, "where it runs": ShellOptions}
    parser = OptionParser("hpcdl shell", "hpcdl shell [OPTIONS]", _DESCRIPTION, _EPILOG, groups)
    values = parser.parse(list(argv))
    where = take(ShellOptions, values)
    package = Path(hpcdl.__file__).resolve().parent
    lib = lib_folder(package, os.environ)
    way = _plan(take(JobOptions, values), where, str(lib), os.environ)
    if not where.dry_run:
        keep_lib(package, lib)
        _enter(way)
    print("\n".join(way.lines()))
    return EXIT_DONE


def _enter(way: Way) -> NoReturn:
    command = [*way.allocate, *([] if way.is_typed else way.enter)]
    if shutil.which(command[0]) is None:
        raise BadInput(
            f"{command[0]} is needed to get there; found none here; log in to the site, or pass --dry-run"
        )
    if way.is_typed:
        say(f"there, type:\n{shlex.join(way.enter)}")
    os.execvp(command[0], command)


def _plan(job: JobOptions, where: ShellOptions, lib: str, environ: Mapping[str, str]) -> Way:
    folder = config_dir(environ)
    config: Config = read_config(folder)
    name, how = choose_site(where.site, config.site, environ, folder)
    profile = load_profile(name, folder)
    say(f"site {name} ({how})")
    if "SLURM_JOB_ID" in environ and profile.site.scheduler == "slurm":
        raise BadInput(
            f"this is inside job {environ['SLURM_JOB_ID']} already; leave it first, or run the image itself here"
        )
    account = job.account or config.account
    if profile.site.account_required and account is None and profile.site.scheduler == "slurm":
        raise BadInput(
            f"a job at {profile.site.title} must name an account; received none; pass --account NAME"
        )
    image = find_image(
        profile.site.container,
        where.image,
        must_exist=not where.dry_run,
        default=config.image,
        tried=read_tried(environ),
    )
    return plan_shell(profile, job, account, image, typed_cwd(environ), lib, config.partition)


def _refuse_words_of_salloc(site: Site, options: JobOptions) -> None:
    said = {name: value for name, value in changed(options).items() if name in _OF_SALLOC}
    if said:
        raise BadInput(
            f"{site.title} has {site.interactive} in place of salloc, which may not take all of its words; received"
            f" {' '.join(to_argv(JobOptions(**said)))}; leave it out, or add to what --dry-run prints what"
            f" {site.interactive} has for it"
        )


def _salloc_words(profile: Profile, layout: Layout, options: JobOptions, account: Optional[str]) -> List[str]:
    """Says in salloc's words what `hpcdl submit` says in sbatch's."""
    memory = "0" if layout.memory_mb is None else f"{layout.memory_mb}M"
    gpus = f"{layout.gpu_type}:{layout.gpus_per_node}" if layout.gpu_type else str(layout.gpus_per_node)
    by_gres = profile.site.gpu_request == "gres" or profile.site.interactive is not None
    wanted = [
        ("-A", account),
        ("-p", layout.partition),
        ("-q", layout.qos),
        ("-N", str(layout.num_nodes)),
        ("-t", f"{hours_of(layout.time_limit_min)}:00"),
        ("--ntasks-per-node", str(layout.processes_per_node)),
    ]
    words = [word for name, value in wanted if value is not None for word in (name, value)]
    if layout.gpus_per_node and profile.site.gpu_request not in ("gpus-per-task", "none"):
        words.append(f"--gres=gpu:{gpus}" if by_gres else f"--gpus-per-node={gpus}")
    if profile.site.interactive is None:  # stands for what the site gives by itself
        words += [f"--cpus-per-task={layout.cores_per_process}", f"--mem={memory}"]
        words += [f"--constraint={layout.constraint}"] if layout.constraint else []
        words += [f"--reservation={options.reservation}"] if options.reservation else []
        words += ["--exclusive"] if layout.whole_nodes else []
        words += [*profile.site.sbatch_args, *options.sbatch_arg]
    return words


_DESCRIPTION = """\
Open a shell in the site's image, on a node of the cluster, with hpcdl at hand: `python3 -m hpcdl.runtime train.py`."""

_EPILOG = """\
examples:
  hpcdl shell --site bridges2 -t 1:00:00 -A abc123p --dry-run      print the commands
  hpcdl shell --site mycluster -t 30 --image tf.sif"""
