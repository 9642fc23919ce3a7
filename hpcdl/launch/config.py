"""The user's own defaults: ``~/.config/hpcdl/config.toml``.

Synopsis::

    config = read_config(config_dir(os.environ))
    config.account                              # "abc123p", or None
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput
from hpcdl.launch.toml import read_toml


@dataclass(frozen=True)
class Config:
    """Words that need not be typed each time. None: not set.

    Attributes:
        site: The site, where the host name does not tell it.
        account: The account that jobs are charged to.
        partition: The partition.
        image: The image.
        mail_user: Where Slurm's mail goes.
        jobs_dir: Where job folders are made.
        shared_folder: A folder in which nodes see all, though its name or kind says otherwise.
    """

    site: Optional[str] = None
    account: Optional[str] = None
    partition: Optional[str] = None
    image: Optional[str] = None
    mail_user: Optional[str] = None
    jobs_dir: Optional[str] = None
    shared_folder: Optional[str] = None


def read_config(folder: Path) -> Config:
    """Reads config.toml in a folder; what is not there is not set.

    Raises:
        BadInput: A key is unknown or no text.
    """
    path = folder / "config.toml"
    if not path.exists():
        return Config()
    tree = read_toml(path)
    names = [field.name for field in dataclasses.fields(Config)]
    for key, value in tree.items():
        if key not in names:
            hint = did_you_mean(key, names)
            raise BadInput(f"unknown key {key} in {path}; {hint}keys: {', '.join(names)}")
        if not isinstance(value, str) or not value:
            raise BadInput(f"{key} in {path} must be text; received {value!r}; write {key} = 'text'")
    return Config(**tree)
