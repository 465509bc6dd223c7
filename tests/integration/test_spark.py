"""The history on a local Spark cluster of two workers: figures identical to the last integer."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from cloud.history import figures_of_history
from cloud.spark import figures_on_spark, session
from cloud.store.parquet import History
from tests.support.days import days_of_telemetry, history_of, plant_of_days

pytestmark = pytest.mark.slow
SPARK = Path(pyspark.__file__).parent
WAIT_SECS = 240.0


def started(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one process of the cluster."""
    environment = {**os.environ, "SPARK_HOME": str(SPARK), "PYSPARK_PYTHON": sys.executable}
    with log.open("wb") as output:
        return subprocess.Popen(
            [SPARK / "bin" / "spark-class", *arguments], stdout=output, stderr=output, env=environment
        )


def said(log: Path, what: str) -> str:
    """Wait until a process has said that it is up."""
    deadline = time.monotonic() + WAIT_SECS
    while time.monotonic() < deadline:
        if found := re.search(what, log.read_text()):
            return found[0]
        time.sleep(0.1)
    pytest.fail(f"Spark did not start (is Java installed?):\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    deploy = "org.apache.spark.deploy"
    processes = []
    try:
        processes.append(
            started(
                folder / "master.log",
                f"{deploy}.master.Master",
                *("--host", "127.0.0.1", "--port", "0", "--webui-port", "0"),
            )
        )
        url = said(folder / "master.log", r"spark://127\.0\.0\.1:\d+")
        logs = [folder / f"worker-{number}.log" for number in range(2)]
        processes.extend(
            started(
                log,
                f"{deploy}.worker.Worker",
                *("--host", "127.0.0.1", "--webui-port", "0", "--cores", "1", "--memory", "1g"),
                *("--work-dir", str(log.with_suffix(".work")), url),
            )
            for log in logs
        )
        for log in logs:
            said(log, "Successfully registered with master")
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "4",
            "spark.local.dir": str(folder),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
        }
        with session(url, settings) as found:
            yield found
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return history_of(tmp_path_factory.mktemp("history"), days_of_telemetry(5), rows_per_group=700)


def test_figures_are_those_of_one_machine(spark: SparkSession, history: History) -> None:
    plant = plant_of_days()
    for per in ("shift", "hour", "product"):
        expected = [row.to_dict() for row in figures_of_history(plant, history, per=per)]
        found = [row.to_dict() for row in figures_on_spark(plant, str(history.root), spark, per=per)]
        assert len(expected) > 3
        assert found == expected


def test_two_workers_take_part(spark: SparkSession) -> None:
    context = spark.sparkContext
    assert len(context._jsc.sc().statusTracker().getExecutorInfos()) == 1 + 2


@pytest.mark.parametrize("definitions", ['unknown_time = "hold"', 'counts_between_samples = "proportional"'])
def test_a_part_of_the_history_is_the_same(spark: SparkSession, history: History, definitions: str) -> None:
    plant = plant_of_days(definitions)
    since, until = date(2021, 6, 30), date(2021, 7, 1)
    expected = figures_of_history(plant, history, since=since, until=until)
    found = figures_on_spark(plant, str(history.root), spark, since=since, until=until)
    assert [row.to_dict() for row in found] == [row.to_dict() for row in expected]
