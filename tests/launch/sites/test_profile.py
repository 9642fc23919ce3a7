"""Profiles: every shipped one is sound, a typo is said in one line, a user's own file changes single values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.sites.command import list_facts, list_lines, main, show_facts, show_lines
from hpcdl.launch.sites.library import guess_site, load_profile, own_path, site_names
from hpcdl.launch.sites.profile import Profile, Source
from hpcdl.launch.sites.reading import Layer, parse_profile

OWN = Source("mine", "2026-11-24", "confirmed")
SHIPPED = (
    "bridges2",
    "delta",
    "expanse",
    "frontier",
    "generic_slurm",
    "juwels_booster",
    "leonardo",
    "local",
    "lumi",
    "perlmutter",
)


def parse(tree: Dict[str, Any], own: Any = OWN) -> Profile:
    return parse_profile("x", [Layer(tree, "x.toml", own)])


def test_the_shipped_sites_are_these(tmp_path: Path) -> None:
    assert tuple(site_names(tmp_path)) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_of_a_shipped_site_has_a_source_a_date_and_a_status(name: str, tmp_path: Path) -> None:
    profile = load_profile(name, tmp_path)
    assert profile.site.scheduler in ("slurm", "none")
    for source in profile.sources.values():
        assert source.what
        assert source.date[:2] == "20"
        assert source.status in ("confirmed", "second-hand")


def test_a_value_without_a_source_is_refused_in_a_shipped_file() -> None:
    with pytest.raises(BadInput, match="gpu_bind in x.toml must name its source; received 'none'"):
        parse({"gpu_bind": "none"}, own=None)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"gpu_bnd": "none"}, "unknown key gpu_bnd in x.toml; did you mean gpu_bind"),
        ({"queues": {"a": {"max_mins": 3}}}, "unknown key queues.a.max_mins in x.toml; did you mean max_min"),
        ({"queues": {"a": {"max_min": "3"}}}, "queues.a.max_min in x.toml must be whole; received '3'"),
        ({"requeue": "yes"}, "requeue in x.toml must be yes or no; received 'yes'; write e.g. true"),
        ({"setup": "module load x"}, "setup in x.toml must be texts"),
        ({"scheduler": "slrum"}, "unknown scheduler 'slrum' in x.toml; did you mean slurm"),
        (
            {"default_queue": "gpu", "queues": {"gpus": {}}},
            "unknown default_queue 'gpu' in x.toml; did you mean gpus",
        ),
        ({"queues": {"a": {"gpus": ["v100"]}}}, "unknown queues.a.gpus 'v100'"),
        ({"gpu_bind": ["none", "nobody"]}, "gpu_bind in x.toml names the source 'nobody'; sources: none"),
        (
            {"sources": {"a": {"what": "w", "date": "2026"}}},
            "sources.a in x.toml must have what, date and status",
        ),
        ({"title": 3}, "title in x.toml must be text"),
        ({"container": "none"}, "container in x.toml must be a table"),
    ],
)
def test_a_typo_in_a_profile_is_said_in_one_line(tree: Dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(tree)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_is_told_from_a_list_of_two_texts() -> None:
    sources = {"s": {"what": "w", "date": "2026", "status": "second-hand"}}
    assert parse({"setup": ["a", "b"]}).site.setup == ("a", "b")
    profile = parse({"sources": sources, "setup": [["a", "b"], "s"]})
    assert profile.site.setup == ("a", "b")
    assert profile.unconfirmed(["setup"]) == ["setup"]


def test_a_file_of_the_user_changes_single_values_of_a_shipped_site(tmp_path: Path) -> None:
    path = own_path("bridges2", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('mpi = "pmi2"\n[queues.GPU]\nmax_nodes = 9\n')
    shipped, changed = load_profile("bridges2", tmp_path / "none"), load_profile("bridges2", tmp_path)
    assert (shipped.site.queues["GPU"].max_nodes, changed.site.queues["GPU"].max_nodes) == (4, 9)
    assert changed.site.queues["GPU"].max_min == shipped.site.queues["GPU"].max_min
    assert changed.site.mpi == "pmi2"
    assert changed.sources["mpi"].what == str(path)
    assert "mpi" not in changed.unconfirmed(["mpi"])


def test_an_unknown_site_lists_near_names(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown site 'bridges'; did you mean bridges2"):
        load_profile("bridges", tmp_path)


def test_a_file_that_is_no_toml_is_said_with_its_line(tmp_path: Path) -> None:
    path = own_path("mine", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("title = \n")
    with pytest.raises(BadInput, match=r"mine\.toml must be a TOML file; received: .*line 1"):
        load_profile("mine", tmp_path)


def test_the_site_is_guessed_from_the_host_or_a_variable_of_its_login_nodes(tmp_path: Path) -> None:
    assert guess_site("br012.ib.bridges2.psc.edu", {}, tmp_path) == "bridges2"
    assert guess_site("login07", {"NERSC_HOST": "perlmutter"}, tmp_path) == "perlmutter"
    assert guess_site("laptop", {}, tmp_path) is None


def test_a_host_that_two_sites_claim_is_not_guessed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        own_path(name, tmp_path).parent.mkdir(parents=True, exist_ok=True)
        own_path(name, tmp_path).write_text('hosts = ["login*"]\n')
    assert guess_site("login1", {}, tmp_path) is None


def test_show_gives_each_value_with_its_source_and_names_what_is_unknown(tmp_path: Path) -> None:
    text = "\n".join(show_lines(show_facts(load_profile("juwels_booster", tmp_path))))
    assert "queues.booster.max_min" in text
    assert "second-hand: users' notes, 2026-11-24" in text
    unknown = text.rpartition("unknown, asked for where needed: ")[2]
    assert "scratch," in unknown
    assert "container.images," in unknown


def test_list_has_a_line_for_each_site(tmp_path: Path) -> None:
    assert [line.split()[0] for line in list_lines(list_facts(tmp_path))] == list(SHIPPED)


def test_a_script_reads_sites_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    assert set(SHIPPED) <= {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert main(["show", "lumi", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["values"]["scheduler"]["value"] == "slurm"
    assert set(shown["values"]["scheduler"]["source"]) == {"what", "date", "status"}
    assert not set(shown["values"]) & set(shown["unknown"])


def test_a_wrong_action_is_bad_input() -> None:
    with pytest.raises(BadInput, match="invalid choice: 'shwo'"):
        main(["shwo"])
