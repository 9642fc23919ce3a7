"""Ranks inside an image, started by ``hpcdl train`` in a Slurm job that the user holds.

Synopsis::

    inside = plan_inside(options, command, os.environ)              # None: without an image
    start = [*inside.enter(layout, log_dir, environ), inside.python, "-m", "hpcdl.common.rank_start", ...]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

import hpcdl
from hpcdl.common.options import option
from hpcdl.common.words import TrainCommand
from hpcdl.launch.config import read_config
from hpcdl.launch.container import (
    BY_FILE,
    NO_IMAGE,
    describe_image,
    enter_argv,
    find_image,
    image_environ,
    put_stand_in,
)
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Container
from hpcdl.launch.submission.job import data_folders, rank_names, run_folders, typed_cwd
from hpcdl.launch.submission.layout import Layout
from hpcdl.launch.submission.lib import keep_lib, lib_folder
from hpcdl.launch.submission.words import one_line


@dataclass(frozen=True)
class ImageOptions:
    """An image for ranks that srun starts."""

    image: Optional[str] = option(None, "FILE", "start the ranks inside this image (default: none)", one_line)
    site: Optional[str] = option(
        None, "NAME", "enter it as at site NAME (default: of config.toml, else the host name tells)", one_line
    )


@dataclass(frozen=True)
class Inside:
    """What the ranks run inside.

    Attributes:
        container: How images are run here.
        image: The image.
        folders: What they read and write, but for the logs.
        cwd: Working folder.
        lib: Folder with the half of hpcdl that they need.
    """

    container: Container
    image: str
    folders: Tuple[str, ...]
    cwd: str
    lib: Path

    @property
    def python(self) -> str:
        """Starts Python there."""
        return self.container.python or "python3"

    def enter(self, layout: Layout, log_dir: Path, environ: Mapping[str, str]) -> List[str]:
        """Builds the words that stand before a command of the ranks; ``environ`` is what it must find."""
        words = enter_argv(
            self.container,
            self.image,
            folders=[*self.folders, str(log_dir), str(self.lib)],
            cwd=self.cwd,
            with_gpus=layout.gpus_per_node > 0,
        )
        return [*words, *rank_names({**environ, "PYTHONPATH": str(self.lib)})]

    def prepare(self, log_dir: Path, path: str) -> Dict[str, str]:
        """Makes the copy of hpcdl that the ranks import, and what their image needs.

        Args:
            log_dir: Folder of the ranks' logs, which is there.
            path: PATH.

        Returns:
            Variables for srun.
        """
        keep_lib(_package(), self.lib)
        if self.container.kind in BY_FILE:
            put_stand_in(log_dir / "bin")
            path = os.pathsep.join([str(log_dir / "bin"), path])
        return {"PATH": path, **image_environ(describe_image(self.image))}


def plan_inside(options: ImageOptions, command: TrainCommand, environ: Mapping[str, str]) -> Optional[Inside]:
    """Decides what the ranks run inside; nothing is written. None: in no image.

    Raises:
        BadInput: There is no such image, or nothing tells how images are run here.
    """
    if options.image is None or options.image == NO_IMAGE:
        return None
    folder = config_dir(environ)
    name, _ = choose_site(options.site, read_config(folder).site, environ, folder)
    container = load_profile(name, folder).site.container
    image = find_image(container, options.image, must_exist=not command.launch.dry_run)
    if image is None:
        return None
    is_script = command.target_kind == "script"
    code = os.path.dirname(os.path.abspath(command.target)) if is_script else None
    data = data_folders(command.options.data_dir, environ)
    cwd = typed_cwd(environ)
    folders = run_folders(Path(cwd), cwd, code, command.settings.run_dir, data)
    return Inside(container, image, tuple(folders), cwd, lib_folder(_package(), environ))


def _package() -> Path:
    return Path(hpcdl.__file__).resolve().parent
