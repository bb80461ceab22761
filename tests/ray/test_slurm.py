"""cluster/slurm.sh on a real Slurm: Debian's munged, slurmctld and slurmd, on a host of their own within this one."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from namespaces import ADDRESS, Host, own_host

import raymeta

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TRAINING: dict[str, Any] = {
    "steps": 300, "validate_every": 0, "test_episodes": 20, "checkpoint_every": 50, "model.hidden": [16, 16]
}  # fmt: skip
OPTIONS = [word for key, value in TRAINING.items() for word in (f"--{key}", str(value))]
OPTIONS = ["--preset", "sinusoid-maml", *OPTIONS, "--workers", "auto"]

CONFIGURATION = """
ClusterName=test
SlurmctldHost=node({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
NodeName=node NodeAddr={address} CPUs=2
PartitionName=all Nodes=node Default=YES State=UP
"""
START = """
munged --force --key-file={home}/munge.key --socket={home}/munge.socket --pid-file={home}/munge.pid \
    --log-file={home}/munge.log --seed-file={home}/munge.seed
slurmctld
slurmd -N node
"""


class Slurm(NamedTuple):
    """A running Slurm of one node."""

    host: Host

    def submit(self, *options: str) -> str:
        """The number of a new job."""
        return self.host("sbatch", "--parsable", "--time=10", "cluster/slurm.sh", *options).strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.host("scontrol", "show", "job", number)))

    def wait(self, number: str, until: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        deadline = time.monotonic() + 300
        while not until(job := self.job(number)):
            assert time.monotonic() < deadline, f"{job}\n{self.log(number)}"
            time.sleep(1)
        return job

    def ended(self, number: str) -> dict[str, str]:
        return self.wait(number, lambda job: job["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))

    def log(self, number: str) -> str:
        path = self.host.home / f"raymeta-{number}.log"
        return path.read_text() if path.exists() else "no log yet"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    home = tmp_path_factory.mktemp("slurm")
    (home / "munge.key").write_bytes(os.urandom(128))
    (home / "munge.key").chmod(0o400)
    (home / "slurm.conf").write_text(CONFIGURATION.format(home=home, address=ADDRESS))
    (home / "state").mkdir()
    environment = {"SLURM_CONF": str(home / "slurm.conf")}
    needs = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol"]
    with own_host(home, needs=needs, environment=environment, commands=START.format(home=home)) as host:
        yield Slurm(host)


def test_a_job_saves_before_its_time_is_up_queues_again_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    number = slurm.submit(*OPTIONS)
    runs = slurm.host.home / "results" / f"slurm-{number}"
    slurm.wait(number, lambda job: any(path.stat().st_size for path in runs.glob("*/metrics.jsonl")))
    slurm.host("scancel", "--batch", "--signal=TERM", number)  # what Slurm itself sends before the time limit
    slurm.wait(number, lambda job: job["Restarts"] == "1")
    job = slurm.ended(number)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), slurm.log(number)
    (run,) = [path.parent for path in runs.glob("*/run.json")]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (resumed,) = [event for event in events if event["kind"] == "resumed"]
    assert 0 < resumed["step"] < TRAINING["steps"], "it neither started again nor was done already"
    alone = raymeta.meta_train("sinusoid-maml", output=str(tmp_path), **TRAINING)
    assert alone.summary is not None
    assert json.loads((run / "summary.json").read_text())["params_sha256"] == alone.summary["params_sha256"]


def test_a_job_that_trains_nothing_fails(slurm: Slurm) -> None:
    """A mistake keeps the command's exit code; where Ray does not start, `ray symmetric-run` itself ends with 0."""
    mistaken = slurm.submit(*OPTIONS, "--tasks.shots", "5")
    assert slurm.ended(mistaken)["ExitCode"] == "2:0", slurm.log(mistaken)
    assert "did you mean tasks.shot" in slurm.log(mistaken)

    following = int(mistaken) + 1  # a job's number decides its port
    listen = f"import socket, time; s = socket.create_server(('', {20000 + following % 10000})); time.sleep(600)"
    with slurm.host.popen("python", "-c", listen) as busy:
        number = slurm.submit(*OPTIONS)
        job = slurm.ended(number)
        busy.kill()
    assert number == str(following)
    assert job["ExitCode"] == "3:0", slurm.log(number)
    assert "nothing was trained" in slurm.log(number)
