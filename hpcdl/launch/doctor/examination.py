"""One visit to the doctor: gathers the facts here, in the image and in a short job, and has them checked.

Synopsis::

    findings, facts = Examination(options, job, os.environ).run(with_nodes=True)
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.files import nearest_existing
from hpcdl.common.options import folder, name_out_of, option, retold, switch
from hpcdl.common.saying import say
from hpcdl.common.words import parse_train
from hpcdl.launch.config import Config, read_config
from hpcdl.launch.container import NO_IMAGE, enter_argv, find_image
from hpcdl.launch.doctor.cuda import driver_findings
from hpcdl.launch.doctor.gather import gather_host, gather_inside, read_hellos, read_ranks
from hpcdl.launch.doctor.hello import candidates, check_hellos, hello_lines
from hpcdl.launch.doctor.host import HostFacts, check_host, check_plan, check_submission, refused
from hpcdl.launch.doctor.image import check_image, passes, ways_of
from hpcdl.launch.doctor.nodes import check_nodes
from hpcdl.launch.doctor.verdict import FAILED, WARNING, Finding, is_ill
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.explain import cost_or_hours
from hpcdl.launch.submission.folders import Submitted, ask_queue, find_job, state_of
from hpcdl.launch.submission.freeze import Tree
from hpcdl.launch.submission.handover import hand_over
from hpcdl.launch.submission.job import Job, default_parent, rank_names, run_folders, typed_cwd
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.lib import write_lib
from hpcdl.launch.submission.preparing import prepare, ranks_python, refuse_inside_job
from hpcdl.launch.submission.state import read_state
from hpcdl.launch.submission.words import LAUNCHERS, JobOptions, PlaceOptions, SubmitCommand, one_line
from hpcdl.launch.tried_images import note_image

_EXAMINING = "hpcdl/runtime/examining/ranks.py"
_POLL_S = 0.5
_ASK_S = 5.0
_MINUTES = "10"
_NAME = "hpcdl-doctor"


@dataclass(frozen=True)
class DoctorOptions:
    """What is examined, and where the findings go."""

    site: Optional[str] = option(
        None, "NAME", "examine site NAME (default: of config.toml, else the host name tells)", one_line
    )
    image: Optional[str] = option(
        None, "FILE", "look into this image; none: without one (default: the site's newest)", one_line
    )
    python: Optional[str] = option(None, "COMMAND", "ask this Python (default: as for submit)", one_line)
    launcher: str = option(
        "auto", "NAME", "examine this way to start ranks (default: auto)", name_out_of(LAUNCHERS)
    )
    run_dir: Optional[str] = option(None, "DIR", "also try to write into DIR, of a run", folder)
    jobs_dir: Optional[str] = option(None, "DIR", "job folders are in DIR (default: as for submit)", folder)
    quick: bool = switch("load no TensorFlow, in the image or on the nodes")
    json: bool = switch("write findings and facts as JSON")
    report: Optional[str] = option(None, "FILE", "write a text for a support ticket to FILE", one_line)


@dataclass(frozen=True)
class DoctorJobOptions(JobOptions):
    """sbatch's own words, for the doctor's job."""

    refused = {
        name: ("the doctor's job runs once", "leave it out") for name in ("no_requeue", "max_requeues")
    }

    time: Optional[str] = retold(
        JobOptions, "time", f"run for at most LIMIT: 30 (minutes), 8:00:00, 1-12:00:00 (default: {_MINUTES})"
    )
    nodes: int = retold(JobOptions, "nodes", "run a short job on N nodes, too (default: no job)")
    job_name: Optional[str] = retold(JobOptions, "job_name", f"call the job NAME (default: {_NAME})")


class Examination:
    """One visit to the doctor: each part is only looked at if those before it let it be.

    Args:
        options: What is examined.
        job: What a job would ask for.
        environ: Variables of this shell.
    """

    def __init__(self, options: DoctorOptions, job: JobOptions, environ: Mapping[str, str]) -> None:
        self._options = options
        self._job = job
        self._environ = environ
        self._config_dir = config_dir(environ)
        self._config: Config = read_config(self._config_dir)
        name, how = choose_site(options.site, self._config.site, environ, self._config_dir, otherwise="local")
        say(f"site {name} ({how})")
        self._profile: Profile = load_profile(name, self._config_dir)

    def run(self, with_nodes: bool) -> Tuple[List[Finding], Dict[str, Any]]:
        """Looks at everything; gives the findings, and the facts behind them."""
        has_slurm = self._profile.site.scheduler == "slurm"
        if with_nodes and not has_slurm and self._job.nodes > 1:
            raise BadInput(
                f"site {self._profile.name} is one machine; received --nodes {self._job.nodes}; leave it out"
            )
        asked = dataclasses.replace(self._job, time=self._job.time or _MINUTES)
        layout, trouble = self._layout(asked)
        launcher = layout.launcher if layout is not None else self._options.launcher
        partition = layout.partition if layout is not None else asked.partition or self._config.partition
        image, problem = self._image()
        host = gather_host(
            self._profile,
            image,
            self._job.account or self._config.account,
            self._folders(),
            self._environ,
            with_mpirun=launcher == "mpirun",
        )
        if problem is not None:
            host = dataclasses.replace(host, image_problem=problem)
        findings = [*check_host(host, self._profile, partition, launcher), check_plan(layout, trouble)]
        facts: Dict[str, Any] = {"host": dataclasses.asdict(host)}
        if layout is None:
            return [*findings, _not_tried("image")], facts
        facts["layout"] = dataclasses.asdict(layout)
        if has_slurm and problem is None and not is_ill(findings):
            findings.append(self._ask_slurm(asked, image))
        if any(one.status == FAILED and one.check in ("container", "image", "folder") for one in findings):
            return [*findings, _not_tried("image")], facts
        inside = self._look_inside(image, layout)
        facts["image"] = inside
        # What is kept of a file, the job will know as well; of what is none, neither does.
        ways = ways_of(inside) if image is not None and os.path.isfile(image) else None
        layout = self._layout(asked, ways)[0] or layout
        of_image = check_image(inside, self._profile, layout, image, host.mpirun)
        findings += of_image
        if image is not None and not self._options.quick:
            note_image(image, passes(of_image), self._environ, ways)
        if not with_nodes:
            return findings, facts
        if is_ill(findings):
            return [*findings, _not_tried("nodes")], facts
        more, facts["nodes"] = self._visit_nodes(asked, layout, host, inside)
        return [*findings, *more], facts

    def _layout(
        self, asked: JobOptions, ways: Optional[Sequence[str]] = None
    ) -> Tuple[Optional[Layout], str]:
        """Gives what a job would ask for, or why there can be none."""
        settings = parse_train(self._train_words()).settings
        options, partition = self._options, self._config.partition
        try:
            return lay_out(self._profile, asked, settings, options.launcher, partition, ways), ""
        except BadInput as problem:
            return None, str(problem)

    def _train_words(self) -> List[str]:
        run_dir = [f"--run-dir={self._options.run_dir}"] if self._options.run_dir is not None else []
        return [*run_dir, "fashion_mnist/fc64"]

    def _jobs_dir(self) -> Path:
        return default_parent(self._options.jobs_dir or self._config.jobs_dir)

    def _folders(self) -> List[str]:
        run_dir = [os.path.abspath(self._options.run_dir)] if self._options.run_dir is not None else []
        return [str(self._jobs_dir()), *run_dir]

    def _image(self) -> Tuple[Optional[str], Optional[str]]:
        """Gives the image, and what is wrong if there is none."""
        asked, default = self._options.image, self._config.image
        try:
            return find_image(self._profile.site.container, asked, default=default), None
        except BadInput as problem:
            return asked or default or "no image", str(problem)

    def _look_inside(self, image: Optional[str], layout: Layout) -> Dict[str, Any]:
        cwd = typed_cwd(self._environ)
        # A folder that is yet to be made is as good as the one that it will be made in.
        jobs, *runs = [str(nearest_existing(Path(folder))) for folder in self._folders()]
        with tempfile.TemporaryDirectory(prefix="hpcdl-doctor-", dir=jobs) as name:
            lib = Path(name) / "lib"
            write_lib(Path(hpcdl.__file__).resolve().parent, lib)
            bound = run_folders(Path(name), cwd, None, self._options.run_dir)
            with_gpus = layout.gpus_per_node > 0
            return gather_inside(
                self._enter(image, bound, cwd, with_gpus),
                ranks_python(self._options.python, self._profile, image),
                self._profile.site.setup,
                lib,
                [name, *runs],
                self._environ,
                self._options.quick,
                self._enter(image, bound, cwd, with_gpus=False) if with_gpus else (),
            )

    def _enter(self, image: Optional[str], bound: Sequence[str], cwd: str, with_gpus: bool) -> List[str]:
        if image is None:
            return []
        container = self._profile.site.container
        enter = enter_argv(container, image, folders=bound, cwd=cwd, with_gpus=with_gpus)
        return [*enter, *rank_names({"PYTHONPATH": ""})]

    def _prepare(
        self, asked: JobOptions, image: Optional[str], when: bool = False
    ) -> Tuple[Job, Optional[Tree]]:
        """Decides everything about the doctor's own job, and writes nothing.

        Raises:
            BadInput: There can be no such job.
        """
        options = self._options
        place = PlaceOptions(
            site=self._profile.name,
            image=image or NO_IMAGE,
            python=options.python,
            launcher=options.launcher,
            jobs_dir=options.jobs_dir,
            when=when,
        )
        asked = dataclasses.replace(asked, job_name=asked.job_name or _NAME, no_requeue=True)
        command = SubmitCommand(parse_train(self._train_words()), asked, place)
        quick = ["--quick"] if options.quick else []

        def program(folder: Path) -> List[str]:
            seen = [
                str(folder),
                *([os.path.dirname(os.path.abspath(options.run_dir))] if options.run_dir else []),
            ]
            return ["hpcdl.runtime", str(folder / "lib" / _EXAMINING), *quick, *seen]

        return prepare(command, self._profile, self._config, ["doctor"], self._environ, program)

    def _ask_slurm(self, asked: JobOptions, image: Optional[str]) -> Finding:
        """Lets Slurm judge the doctor's job, without running it."""
        from hpcdl.launch.submission.executors import ask_when  # submitit takes a while to load

        try:
            job, _ = self._prepare(asked, image, when=True)
        except BadInput as problem:
            return refused("submission", str(problem))
        try:
            return check_submission(ask_when(job, self._environ), is_refused=False)
        except BadInput as problem:
            return check_submission(str(problem), is_refused=True)
        except HpcdlError as problem:
            return check_submission(str(problem).partition(";")[0], None)

    def _visit_nodes(
        self, asked: JobOptions, layout: Layout, host: HostFacts, inside: Mapping[str, Any]
    ) -> Tuple[List[Finding], Dict[str, Any]]:
        refuse_inside_job(self._environ)
        options = self._options
        job, tree = self._prepare(asked, host.image)
        library = (inside.get("mpi") or {}).get("library")
        if library is not None and layout.world_size > 1 and layout.launcher != "here":
            job = self._with_hellos(job, layout, host, library)
        if job.executor == "slurm":
            say(f"the job costs {cost_or_hours(self._profile.site, layout)}")
        job_id = hand_over(job, tree, self._environ)
        say(f"job {job_id}, folder {job.folder}; Ctrl-C leaves it to `hpcdl cancel {job_id}`")
        _wait(find_job(job.folder, Path(job.folder).parent))
        state = read_state(Path(job.folder))
        seen, met = read_ranks(job.log_dir, "seen"), read_ranks(job.log_dir, "met")
        findings = check_nodes(seen, met, self._profile, layout, state, options.quick)
        hellos = read_hellos(job.log_dir)
        findings += check_hellos(hellos, self._profile, layout)
        gpus = [gpu for one in seen for gpu in one["gpus"]]
        has_compat = any(one["cuda_compat"] for one in seen)
        findings += driver_findings("nodes", inside.get("tensorflow") or {}, gpus, has_compat)
        facts = {
            "job": job_id,
            "folder": job.folder,
            "state": state,
            "seen": seen,
            "met": met,
            "hellos": hellos,
        }
        return findings, facts

    def _with_hellos(self, job: Job, layout: Layout, host: HostFacts, library: str) -> Job:
        """Lets two ranks say hello by each of srun's types, before the ranks start."""
        image = job.record.get("image")
        bound = run_folders(Path(job.folder), job.cwd, None, self._options.run_dir)
        python = ranks_python(self._options.python, self._profile, image)
        enter = self._enter(image, bound, job.cwd, with_gpus=False)
        start = [*enter, *python, str(Path(job.folder) / "lib")]
        lines = hello_lines(candidates(host.mpi_types), layout, start, library, str(job.log_dir))
        return dataclasses.replace(job, setup=(*job.setup, *lines))


def _wait(submitted: Submitted) -> None:
    asked = time.monotonic()
    while read_state(submitted.folder).get("state") in (None, "running"):
        time.sleep(_POLL_S)
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            if state_of(submitted, ask_queue([submitted])).is_over:
                return


def _not_tried(where: str) -> Finding:
    return Finding("(all)", where, WARNING, "not tried", "cure what failed above, then ask again")
