"""Accounts, sessions, displays and the record of what was done."""

import sqlite3

import pytest
from argon2 import PasswordHasher

from dashboards import people
from dashboards.people import Account, PeopleError, TooManyTriesError

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


class Clock:
    now = 1_625_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def known(tmp_path, clock):
    found = people.People(tmp_path / "people.sqlite3", clock, QUICK)
    found.add("Ada", "engineer", PASSWORD)
    yield found
    found.close()


def test_a_new_file_knows_nobody(tmp_path, clock):
    found = people.People(tmp_path / "people.sqlite3", clock, QUICK)
    assert found.is_empty
    found.close()


def test_the_file_holds_neither_passwords_nor_tokens(known, tmp_path):
    _, token = known.sign_in("ada", PASSWORD, "10.0.0.7")
    display = known.add_display("north wall")
    known.close()
    with sqlite3.connect(tmp_path / "people.sqlite3") as database:
        text = "\n".join(database.iterdump())
    database.close()
    assert PASSWORD not in text
    assert token not in text
    assert display not in text
    assert "$argon2id$" in text
    assert (tmp_path / "people.sqlite3").stat().st_mode & 0o077 == 0


def test_signing_in_gives_a_session_that_ends_by_itself(known, clock):
    account, token = known.sign_in("ADA", PASSWORD, "10.0.0.7")
    assert account == Account("Ada", "engineer")
    assert known.of_session(token) == account
    clock.now += people.SESSION_SECS + 1
    assert known.of_session(token) is None


def test_signing_out_ends_the_session(known):
    _, token = known.sign_in("Ada", PASSWORD, "10.0.0.7")
    known.sign_out(token)
    assert known.of_session(token) is None


@pytest.mark.parametrize(
    ("name", "password"), [("Ada", "wrong"), ("Eve", PASSWORD), ("", ""), ("Ada", PASSWORD + "x")]
)
def test_a_wrong_name_or_password_says_the_same(known, name, password):
    with pytest.raises(PeopleError, match="do not belong together"):
        known.sign_in(name, password, "10.0.0.7")


def test_guessing_is_refused_after_five_tries_and_allowed_again_later(known, clock):
    for _ in range(5):
        with pytest.raises(PeopleError, match="do not belong"):
            known.sign_in("Ada", "guess", "10.0.0.7")
    with pytest.raises(TooManyTriesError) as refused:
        known.sign_in("Ada", PASSWORD, "10.0.0.7")
    assert 0 < refused.value.wait_secs <= 300
    clock.now += 301
    assert known.sign_in("Ada", PASSWORD, "10.0.0.7")


def test_one_address_may_not_try_many_names(known):
    for index in range(5):
        with pytest.raises(PeopleError, match="do not belong"):
            known.sign_in(f"name {index}", "guess", "10.0.0.9")
    with pytest.raises(TooManyTriesError):
        known.sign_in("Ada", PASSWORD, "10.0.0.9")


@pytest.mark.parametrize("password", ["short", "x" * 257])
def test_a_password_has_a_sensible_length(known, password):
    with pytest.raises(PeopleError, match="10 to 256"):
        known.add("Bo", "viewer", password)


def test_a_name_is_taken_once_whatever_its_case(known):
    with pytest.raises(PeopleError, match="already"):
        known.add("ADA", "viewer", PASSWORD)


def test_an_unknown_role_is_refused(known):
    with pytest.raises(PeopleError, match="one of viewer"):
        known.add("Bo", "root", PASSWORD)


def test_the_last_engineer_stays(known):
    known.add("Bo", "operator", PASSWORD)
    with pytest.raises(PeopleError, match="At least one engineer"):
        known.remove("Ada")
    with pytest.raises(PeopleError, match="At least one engineer"):
        known.set_role("Ada", "viewer")
    known.set_role("Bo", "engineer")
    known.remove("ada")
    assert [account.name for account in known.accounts()] == ["Bo"]


def test_a_new_password_and_a_removal_end_sessions(known):
    known.add("Bo", "operator", PASSWORD)
    _, first = known.sign_in("Bo", PASSWORD, "10.0.0.7")
    known.set_password("Bo", "another long one")
    assert known.of_session(first) is None
    _, second = known.sign_in("Bo", "another long one", "10.0.0.7")
    known.remove("Bo")
    assert known.of_session(second) is None


def test_a_display_may_look_until_its_token_is_taken_away(known):
    token = known.add_display("north wall")
    assert known.of_display(token) == Account("north wall", "viewer", is_display=True)
    assert known.of_display("guess") is None
    known.remove_display("north wall")
    assert known.of_display(token) is None


def test_roles_include_those_before_them():
    assert Account("Ada", "engineer").may("operator")
    assert not Account("Bo", "operator").may("supervisor")


def test_what_was_done_is_kept_newest_first(known):
    known.note("Ada", "signed in", "", "10.0.0.7")
    known.note("Ada", "gave a reason", "filler-1 jam", "10.0.0.7")
    assert [entry.what for entry in known.entries()] == ["gave a reason", "signed in"]
