"""The profiles that there are: those that come with hpcdl, and the user's own in ~/.config/hpcdl/sites.

A file of the user's that has the name of a shipped one changes single values of it.

Synopsis::

    names = site_names(config_dir(os.environ))
    profile = load_profile("bridges2", config_dir(os.environ))
    guess_site(socket.gethostname(), os.environ, config_dir(os.environ))      # a name, or None
"""

from __future__ import annotations

import fnmatch
import socket
import time
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from hpcdl.common.checks import one_of
from hpcdl.common.errors import BadInput
from hpcdl.launch.sites.profile import Profile, Source
from hpcdl.launch.sites.reading import Layer, parse_profile
from hpcdl.launch.toml import read_toml

_SHIPPED = Path(__file__).resolve().parent


def config_dir(environ: Mapping[str, str]) -> Path:
    """Gives the folder of the user's own settings."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "hpcdl"


def own_path(name: str, config: Path) -> Path:
    """Names the user's own file for a site."""
    return config / "sites" / f"{name}.toml"


def site_names(config: Path) -> List[str]:
    """Lists all sites, by name."""
    return sorted({path.stem for folder in (_SHIPPED, config / "sites") for path in folder.glob("*.toml")})


def load_profile(name: str, config: Path) -> Profile:
    """Reads the profile of a site.

    Raises:
        BadInput: There is none of that name, or a file is wrong.
    """
    one_of("site", name, site_names(config))
    layers = []
    shipped, own = _SHIPPED / f"{name}.toml", own_path(name, config)
    if shipped.exists():
        layers.append(Layer(read_toml(shipped), f"the profile {name} of hpcdl"))
    if own.exists():
        date = time.strftime("%Y-%m-%d", time.gmtime(own.stat().st_mtime))
        layers.append(Layer(read_toml(own), str(own), Source(str(own), date, "confirmed")))
    return parse_profile(name, layers)


def guess_site(hostname: str, environ: Mapping[str, str], config: Path) -> Optional[str]:
    """Finds the site whose login node this is; None if no profile, or more than one, knows it."""
    found = []
    for name in site_names(config):
        site = load_profile(name, config).site
        by_host = any(fnmatch.fnmatch(hostname, pattern) for pattern in site.hosts)
        by_variable = any(environ.get(key) == value for key, value in site.host_variables.items())
        if by_host or by_variable:
            found.append(name)
    return found[0] if len(found) == 1 else None


def choose_site(
    asked: Optional[str],
    configured: Optional[str],
    environ: Mapping[str, str],
    config: Path,
    otherwise: Optional[str] = None,
) -> Tuple[str, str]:
    """Chooses the site that a command is about: the one that is asked for, of config.toml, or that the host tells.

    Args:
        asked: What the user says on the command line.
        configured: What config.toml says.
        environ: Variables by which login nodes are known.
        config: The folder of the user's own settings.
        otherwise: The site if none of these tells.

    Returns:
        Its name, and how it was found, in words.

    Raises:
        BadInput: Nothing tells.
    """
    if asked is not None:
        return asked, "as you say"
    if configured is not None:
        return configured, "of config.toml"
    hostname = socket.gethostname()
    guessed = guess_site(hostname, environ, config)
    if guessed is not None:
        return guessed, f"guessed from the host {hostname}"
    if otherwise is not None:
        return otherwise, f"{hostname} is no host that a profile knows"
    raise BadInput(
        f"a job needs a site, and {hostname} is no host that a profile knows; pass --site:"
        f" {', '.join(site_names(config))}"
    )
