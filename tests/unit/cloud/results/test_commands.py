"""`oee results` and `oee jobs`: what a person sees of where results go."""

from pathlib import Path

import pytest

from cloud.commands_work import jobs, results_list, results_test
from tests.support.cloud import write_config
from tests.support.mailbox import Mailbox
from tests.support.webhooks import Receiver


def configured(folder: Path, results: str) -> Path:
    path = write_config(folder, "mqtt://127.0.0.1:1", options={"cloud": 'results = "results.toml"'})
    (folder / "results.toml").write_text(results)
    return path


def test_each_receiver_is_tried_and_what_became_of_it_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mailbox() as mailbox, Receiver() as receiver:
        config = configured(
            tmp_path,
            f"""
[[report]]
name = "leads"
url = "{mailbox.url()}"
to = ["a@example.com", "gone@example.com"]
[[report]]
name = "filed"
folder = "out"
[[report]]
name = "stuck"
folder = "plant.toml"
[[webhook]]
name = "erp"
url = "{receiver.url}"
allow_insecure = true
[[export]]
name = "bi"
url = "sqlite:///{tmp_path / "bi.sqlite3"}"
[[export]]
name = "lost"
url = "sqlite:////nowhere/bi.sqlite3"
""",
        )
        mailbox.refused = {"gone@example.com"}
        assert results_test(config) == 1
        told = capsys.readouterr()
        assert told.out.splitlines() == [
            "mail:leads:a@example.com: works",
            "folder:filed: works",
            "webhook:erp: works",
            "export:bi: works",
        ]
        warned, *refused = sorted(told.err.splitlines(), key=lambda line: "[warning" not in line)
        assert "messages are not signed" in warned
        assert [line.split(": ")[0] for line in refused] == [
            "mail:leads:gone@example.com",
            "folder:stuck",
            "export:lost",
        ]
        assert mailbox.titles == ["OEE test of leads"]
        assert [one.message["event"] for one in receiver.posted] == ["test"]
        assert results_test(config, "erp") == 0
        assert results_test(config, "nobody") == 2
        assert "there are: leads, filed, stuck, erp, bi, lost" in capsys.readouterr().err


def test_receivers_and_jobs_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(
        tmp_path,
        '[[report]]\nname = "leads"\nfolder = "out"\n[[health]]\nname = "tech"\nurl = "mailtos://x"\n'
        '[[export]]\nname = "bi"\nurl = "sqlite:///bi"\n'
        'places = ["berlin/packaging", "berlin/filling"]\n',
    )
    assert results_list(config) == 0
    assert jobs(config) == 0
    told, warned = capsys.readouterr()
    assert warned.count("places") == 1
    assert "export[bi].places: nothing of the plant lies in 'berlin/filling'" in warned
    for name in ("mail:tech", "export:bi", "report-leads", "health-tech", "dead-letters"):
        assert name in told, name


def test_without_results_the_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, "mqtt://127.0.0.1:1")
    assert results_test(config) == 2
    assert "cloud.results" in capsys.readouterr().err
    assert results_list(config) == 0
