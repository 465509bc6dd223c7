"""Work that comes round: the only door to APScheduler.

When a job is due follows from when it last began, which is kept in the store: a restart neither repeats nor
skips one. Instants are UTC throughout, so no change of the clocks runs a job twice or not at all; a late job
runs once, however late; and when this machine's clock is set, all jobs are scheduled anew. Jobs of one lane
run one after another, lanes beside each other: what takes minutes delays nothing but its own kind.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from cloud.errors import CloudError
from cloud.store.port import JobRun, Store
from cloud.views import JobView

_CLOCK_CHECK_SECS: Final = 10.0
_CLOCK_STEP_US: Final = 5_000_000
_SOON_US: Final = 200_000
_RETRY_US: Final = 600_000_000
"""How long after a failure a rare job is tried again."""
_NOTE_US: Final = 60_000_000
"""How often a run that did nothing is noted in the store."""

_log = structlog.get_logger("cloud.jobs")


class Job(NamedTuple):
    """A piece of work and how often it comes round."""

    name: str
    every_secs: float
    work: Callable[[], str]
    """Runs in its lane's thread; returns what it did, '' for nothing."""
    lane: str = "upkeep"
    """No two jobs of one lane run at once."""


class Jobs:
    """Runs jobs for as long as `run` lasts; a job that fails is tried again, a rare one after ten minutes."""

    def __init__(
        self,
        jobs: Iterable[Job],
        store: Store,
        *,
        now_us: Callable[[], int],
        monotonic_us: Callable[[], int],
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._store = store
        self._now_us = now_us
        self._monotonic_us = monotonic_us
        self._runs = {run.name: run for run in store.job_runs()}
        self._noted = dict(self._runs)
        self._scheduler: AsyncIOScheduler | None = None
        self._lanes: dict[str, ThreadPoolExecutor] = {}

    async def run(self) -> None:
        """Keep the schedule until cancelled; what runs then is let finish."""
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.start()
        try:
            self._schedule()
            while True:
                await self._clock_is_set()
                _log.warning("the clock was set; jobs are scheduled anew")
                self._schedule()
        finally:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
            for lane in self._lanes.values():
                lane.shutdown(wait=False, cancel_futures=True)
            for lane in self._lanes.values():
                lane.shutdown()
            self._lanes.clear()

    def take(self, jobs: Iterable[Job]) -> None:
        """Let these come round from now on, and no others; what runs is let finish. In the loop's thread."""
        self._jobs = {job.name: job for job in jobs}
        if self._scheduler is not None:
            self._schedule()

    def views(self) -> list[JobView]:
        """Return all jobs as they are shown."""
        return [
            JobView(
                name=name,
                every_secs=job.every_secs,
                last_epochtime=None if (run := self._runs.get(name)) is None else run.started_us / 1e6,
                next_epochtime=self.due_us(name) / 1e6,
                took_secs=None if run is None else run.took_us / 1e6,
                runs=0 if run is None else run.runs,
                failures=0 if run is None else run.failures,
                result="" if run is None else run.result,
                error="" if run is None else run.error,
            )
            for name, job in self._jobs.items()
        ]

    def due_us(self, name: str) -> int:
        """Return when a job is due."""
        now_us = self._now_us()
        run = self._runs.get(name)
        every_us = round(self._jobs[name].every_secs * 1e6)
        if run is not None and run.error:
            every_us = min(every_us, _RETRY_US)
        if run is None or run.started_us > now_us:  # never yet, or by a clock that was wrong
            return now_us + _SOON_US
        return max(run.started_us + every_us, now_us + _SOON_US)

    async def _clock_is_set(self) -> None:
        """Return when the wall clock has moved otherwise than time goes."""
        offset_us = self._now_us() - self._monotonic_us()
        while abs(self._now_us() - self._monotonic_us() - offset_us) < _CLOCK_STEP_US:  # noqa: ASYNC110  no event
            await asyncio.sleep(_CLOCK_CHECK_SECS)

    def _schedule(self) -> None:
        assert self._scheduler is not None
        for known in self._scheduler.get_jobs():
            if known.id not in self._jobs:
                known.remove()
        for name in self._jobs:
            self._schedule_next(name)

    def _schedule_next(self, name: str) -> None:
        """Schedule one run: a repeating trigger would count every run that a jump of the clock left out."""
        job = self._jobs.get(name)
        if self._scheduler is None or job is None:
            return  # we are stopping, or it was taken off
        delay_us = self.due_us(name) - self._now_us()
        self._scheduler.add_job(
            self._execute,
            DateTrigger(datetime.now(UTC) + timedelta(microseconds=delay_us)),
            args=(job,),
            id=name,
            replace_existing=True,
        )

    async def _execute(self, job: Job) -> None:
        if job.lane not in self._lanes:
            self._lanes[job.lane] = ThreadPoolExecutor(1, thread_name_prefix=f"cloud.jobs.{job.lane}")
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # the lane is closed: we are stopping
            await loop.run_in_executor(self._lanes[job.lane], self._work, job)
            self._schedule_next(job.name)

    def _work(self, job: Job) -> None:
        before = self._runs.get(job.name, JobRun(job.name, 0, 0, 0, 0, "", ""))
        started_us, began_us = self._now_us(), self._monotonic_us()
        result, error = "", ""
        try:
            result = job.work()
        except CloudError as failure:
            error = str(failure)
            _log.warning("a job failed", job=job.name, reason=error)
        except Exception as failure:  # noqa: BLE001  one job's fault is not the others'
            error = f"{type(failure).__name__}: {failure}"
            _log.exception("a job broke", job=job.name)
        run = JobRun(
            job.name,
            started_us,
            self._monotonic_us() - began_us,
            before.runs + 1,
            before.failures + bool(error),
            result or before.result,
            error,
        )
        self._runs[job.name] = run
        if result:
            _log.info("a job is done", job=job.name, result=result)
        noted = self._noted.get(job.name)
        if noted is None or result or error != noted.error or abs(started_us - noted.started_us) >= _NOTE_US:
            with contextlib.suppress(CloudError):  # the store says itself that it cannot be written
                self._store.save_job_run(run)
                self._noted[job.name] = run
