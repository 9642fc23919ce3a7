"""The command ``hpcdl doctor``: will it work here? On this machine, inside the image, and in a short job.

Synopsis::

    hpcdl doctor --site bridges2
    hpcdl doctor --site bridges2 --nodes 2 -A abc123p --report ticket.txt
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.options import OptionParser, folder, name_out_of, option, switch, take
from hpcdl.common.provenance import without_secrets
from hpcdl.common.saying import say
from hpcdl.common.words import parse_train
from hpcdl.launch.config import Config, read_config
from hpcdl.launch.container import enter_argv, find_image
from hpcdl.launch.doctor.gather import gather_host, gather_inside, read_ranks
from hpcdl.launch.doctor.host import check_host
from hpcdl.launch.doctor.image import check_image, driver_finding
from hpcdl.launch.doctor.nodes import check_nodes
from hpcdl.launch.doctor.verdict import FAILED, WARNING, Finding, as_tree, is_ill, render
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.command import hand_over, prepare, ranks_python, refuse_inside_job
from hpcdl.launch.submission.folders import Submitted, ask_queue, default_parent, state_of
from hpcdl.launch.submission.job import rank_names, run_folders, typed_cwd, write_lib
from hpcdl.launch.submission.keeper import read_state
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.words import LAUNCHERS, JobOptions, PlaceOptions, SubmitCommand, one_line

_EXAMINING = "hpcdl/runtime/examining/ranks.py"
_POLL_S = 0.5
_ASK_S = 5.0
_MINUTES = "10"


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


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl doctor ARGV``.

    Returns:
        The exit status: 1 if a check failed.

    Raises:
        BadInput: The words are wrong, or the site is unknown.
    """
    groups = {"what is examined": DoctorOptions, "the job (sbatch's own words)": JobOptions}
    parser = OptionParser("hpcdl doctor", "hpcdl doctor [OPTIONS]", _DESCRIPTION, _EPILOG, groups)
    values = parser.parse(list(argv))
    options, job = take(DoctorOptions, values), take(JobOptions, values)
    examination = Examination(options, job, os.environ)
    findings, facts = examination.run(with_nodes="nodes" in values)
    if options.json:
        print(json.dumps(as_tree(findings, facts), indent=1))
    else:
        print("\n".join(render(findings)))
    if options.report is not None:
        text = without_secrets(report_text(argv, findings, facts))
        Path(options.report).write_text(text, encoding="utf-8")
        say(f"wrote {options.report}; read it before you send it")
    return EXIT_FAILED if is_ill(findings) else EXIT_DONE


def report_text(argv: Sequence[str], findings: Sequence[Finding], facts: Mapping[str, Any]) -> str:
    """Writes all that a support ticket needs."""
    head = [
        f"hpcdl doctor {' '.join(argv)}",
        f"hpcdl {hpcdl.__version__}, Python {platform.python_version()}, {platform.platform()}",
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    ]
    return "\n".join([*head, "", *render(findings), "", json.dumps(facts, indent=1), ""])


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
        train = parse_train(self._train_words())
        layout = lay_out(self._profile, asked, train.settings, self._options.launcher, self._config.partition)
        image, problem = self._image()
        account = self._job.account or self._config.account
        host = gather_host(self._profile, image, account, self._folders(), self._environ)
        if problem is not None:
            host = dataclasses.replace(host, image_problem=problem)
        findings = check_host(host, self._profile, layout)
        facts: Dict[str, Any] = {"host": dataclasses.asdict(host), "layout": dataclasses.asdict(layout)}
        if any(one.status == FAILED and one.check in ("container", "image", "folder") for one in findings):
            return [*findings, _not_tried("image")], facts
        inside = self._look_inside(image, layout)
        facts["image"] = inside
        findings += check_image(inside, self._profile, layout, image)
        if not with_nodes:
            return findings, facts
        if is_ill(findings):
            return [*findings, _not_tried("nodes")], facts
        more, facts["nodes"] = self._visit_nodes(asked, layout, inside)
        return [*findings, *more], facts

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
        asked = self._options.image or self._config.image
        try:
            return find_image(self._profile.site.container, asked), None
        except BadInput as problem:
            return asked or "no image", str(problem)

    def _look_inside(self, image: Optional[str], layout: Layout) -> Dict[str, Any]:
        cwd = typed_cwd(self._environ)
        # A folder that is yet to be made is as good as the one that it will be made in.
        jobs, *runs = [_existing(Path(folder)) for folder in self._folders()]
        with tempfile.TemporaryDirectory(prefix="hpcdl-doctor-", dir=jobs) as name:
            lib = Path(name) / "lib"
            write_lib(Path(hpcdl.__file__).resolve().parent, lib)
            enter: List[str] = []
            if image is not None:
                bound = run_folders(Path(name), cwd, None, self._options.run_dir)
                enter = enter_argv(
                    self._profile.site.container,
                    image,
                    folders=bound,
                    cwd=cwd,
                    with_gpus=layout.gpus_per_node > 0,
                )
                enter += rank_names({"PYTHONPATH": ""})
            python = ranks_python(self._options.python, self._profile, image)
            setup, seen = self._profile.site.setup, [name, *runs]
            return gather_inside(enter, python, setup, lib, seen, self._environ, self._options.quick)

    def _visit_nodes(
        self, asked: JobOptions, layout: Layout, inside: Mapping[str, Any]
    ) -> Tuple[List[Finding], Dict[str, Any]]:
        refuse_inside_job(self._environ)
        options = self._options
        place = PlaceOptions(
            site=self._profile.name,
            image=options.image,
            python=options.python,
            launcher=options.launcher,
            jobs_dir=options.jobs_dir,
        )
        asked = dataclasses.replace(asked, job_name=asked.job_name or "hpcdl-doctor", no_requeue=True)
        command = SubmitCommand(parse_train(self._train_words()), asked, place)
        quick = ["--quick"] if options.quick else []

        def program(folder: Path) -> List[str]:
            seen = [
                str(folder),
                *([os.path.dirname(os.path.abspath(options.run_dir))] if options.run_dir else []),
            ]
            return ["hpcdl.runtime", str(folder / "lib" / _EXAMINING), *quick, *seen]

        job, tree = prepare(command, self._profile, self._config, ["doctor"], self._environ, program)
        job_id = hand_over(job, tree, self._environ)
        say(f"job {job_id}, folder {job.folder}; Ctrl-C leaves it to `hpcdl cancel {job_id}`")
        _wait(Submitted(job_id, job))
        state = read_state(Path(job.folder))
        seen, met = read_ranks(job.log_dir, "seen"), read_ranks(job.log_dir, "met")
        findings = check_nodes(seen, met, self._profile, layout, state, options.quick)
        cuda = (inside.get("tensorflow") or {}).get("cuda")
        gpus = [gpu for one in seen for gpu in one["gpus"]]
        if cuda and gpus:
            findings.append(driver_finding("nodes", cuda, gpus))
        return findings, {"job": job_id, "folder": job.folder, "state": state, "seen": seen, "met": met}


def _existing(folder: Path) -> str:
    return str(next(one for one in (folder, *folder.parents) if one.exists()))


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


_DESCRIPTION = """\
Find out whether a run will work: on this machine, in the image or environment, and, with --nodes, in a short job."""

_EPILOG = """\
examples:
  hpcdl doctor --site bridges2                                       here, and in the site's newest image
  hpcdl doctor --site bridges2 --nodes 2 -A abc123p                  and in a job on 2 nodes
  hpcdl doctor --site mycluster --image tf.sif --launcher mpi --report ticket.txt

Exit status: 0 nothing failed, 1 a check failed, 2 bad input."""
