"""Adapters that belong to a tenant: their names, their aliases, and what is live of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.adapters import FineTunedName
from serving.adapters.state import STATE
from serving.errors import AdapterNotFound, AdapterRefused
from tests.unit.adapters.site import Site, row

NAME = "ft:tiny:acme:bot:0123456789"


@pytest.mark.parametrize(
    "text",
    [NAME, "ft:org/tiny:acme::0123456789", f"{NAME}:ckpt-step-30", "ft:a.b-c:a:x.y_z:abcdefabcd"],
)
def test_ft_names_are_read_as_they_are_written(text: str) -> None:
    name = FineTunedName.parse(text)
    assert name is not None
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    ["", "ft:", "tiny:bot", "ft:tiny:acme:bot", "ft:tiny:Acme:bot:0123456789", f"{NAME}x",
     "ft:tiny:acme:../bot:0123456789", "ft:tiny:acme:bot:01234567/9", f"{NAME}:ckpt-step-",
     f"{NAME}\n", f"{NAME}:ckpt-step-{'9' * 99}"],
)  # fmt: skip
def test_other_names_are_none(text: str) -> None:
    assert FineTunedName.parse(text) is None


def owned(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    for version in ("1", "2", "2-step-5"):
        site.add("acme.bot", version)
    site.store().change("acme.bot", lambda state: state.owned("acme").named(NAME, "1"))
    return site


def test_nothing_of_a_tenants_adapter_is_live_by_itself(tmp_path: Path) -> None:
    store = owned(tmp_path).store()
    assert store.owner("acme.bot") == "acme"
    with pytest.raises(AdapterNotFound, match="no live version"):
        store.resolve("tiny", "acme.bot")
    assert not row(store, "2", "acme.bot").live
    assert store.resolve("tiny", "acme.bot", "2").engine_name == "tiny:acme.bot@2"


def test_aliases_stand_in_a_versions_place(tmp_path: Path) -> None:
    store = owned(tmp_path).store()
    with pytest.raises(AdapterNotFound, match="no challenger"):
        store.resolve("tiny", "acme.bot", "challenger")
    store.change("acme.bot", lambda state: state.with_live("1").with_challenger("2"))
    assert store.resolve("tiny", "acme.bot").engine_name == "tiny:acme.bot@1"
    assert store.resolve("tiny", "acme.bot", "champion").engine_name == "tiny:acme.bot@1"
    assert store.resolve("tiny", "acme.bot", "challenger").engine_name == "tiny:acme.bot@2"
    store.change("acme.bot", lambda state: state.with_live("2"))
    assert row(store, "2", "acme.bot").live
    assert not row(store, "2", "acme.bot").challenger, "it has become the champion"


def test_ft_names_lead_to_versions_of_their_tenant(tmp_path: Path) -> None:
    store = owned(tmp_path).store()
    name = FineTunedName.parse(NAME)
    assert name is not None
    assert store.find(name) == ("acme.bot", "1")
    assert store.find(name.at(5)) is None
    store.change("acme.bot", lambda state: state.owned("other"))
    assert store.find(name) is None


def test_hints_do_not_tell_of_them(tmp_path: Path) -> None:
    site = owned(tmp_path)
    site.add("pirate", "1")
    with pytest.raises(AdapterNotFound) as caught:
        site.store().resolve("tiny", "acme.bo")
    assert "acme.bot" not in str(caught.value)
    assert str(site.store().not_found("tiny", "acme.bo")) == str(caught.value)


def test_an_operators_decisions_leave_the_owner_alone(tmp_path: Path) -> None:
    store = owned(tmp_path).store()
    store.disable("acme.bot")
    store.enable("acme.bot", "1")
    store.set_live("acme.bot", "1")
    state = store.state("acme.bot")
    assert (state.tenant, state.live, dict(state.names)) == ("acme", "1", {NAME: "1"})
    assert state.is_disabled("2")
    assert state.without("1").names == {}


@pytest.mark.parametrize("field", ["tenant", "challenger", "names"])
def test_a_damaged_state_serves_nothing(tmp_path: Path, field: str) -> None:
    site = owned(tmp_path)
    path = site.home.adapters / "acme.bot" / STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 5}))
    with pytest.raises(AdapterRefused):
        site.store().resolve("tiny", "acme.bot", "1")
