"""A head as cluster/ starts it, on a host of its own: who gets in, a submitted job, and what Prometheus sees."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from namespaces import ADDRESS, Host, own_host
from test_cluster_files import documents, queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DASHBOARD = "http://127.0.0.1:8265"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    home = tmp_path_factory.mktemp("head")
    environment = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    with own_host(home, needs=["curl", "ss", "prometheus"], environment=environment) as host:
        host("ray", "get-auth-token", "--generate")
        (start,) = [line for line in documents("aws.yaml")[0]["head_start_ray_commands"] if "--head" in line]
        words = [word for word in shlex.split(start) if not word.startswith("--autoscaling-config")]
        host(*words, f"--node-ip-address={ADDRESS}", "--num-cpus=2")
        yield host


def test_the_dashboard_is_on_loopback_and_wants_the_token(head: Host) -> None:
    listening = re.findall(r"(\S+):8265\s", head("ss", "-ltn"))
    assert listening == ["127.0.0.1"]
    status = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
    for page in ("/api/version", "/api/jobs/", "/api/prometheus/sd"):
        assert head(*status, DASHBOARD + page) == "401"
        assert head(*status, "--header", "Authorization: Bearer wrong", DASHBOARD + page) == "403"


def test_without_the_token_nothing_joins_and_nothing_is_submitted(head: Host) -> None:
    wrong = {"RAY_AUTH_TOKEN": "0" * 64}
    code, said = head.run("cluster/submit.sh", "--steps", "1", **wrong)
    assert code == 1
    assert "Invalid authentication token" in said
    code, said = head.run("ray", "start", f"--address={ADDRESS}:6379", **wrong)
    assert code != 0
    assert "AuthToken" in said


def test_training_here_closes_the_token_to_others(head: Host) -> None:
    token = head.home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o644, "Ray closes it itself now"
    options = ["--preset", "sinusoid-maml", "--workers", "1", "--steps", "1", "--test_episodes", "5"]
    code, said = head.run("raymeta", "train", *options, timeout_s=240)
    assert code == 0, said
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_job_is_submitted_and_every_panel_of_the_dashboard_has_data(head: Host) -> None:
    (config,) = documents("prometheus.yml")
    config["scrape_configs"][0]["http_sd_configs"][0]["authorization"]["credentials_file"] = (
        f"{head.home}/.ray/auth_token"
    )
    config["scrape_configs"][0]["http_sd_configs"][0]["refresh_interval"] = "2s"
    config["global"]["scrape_interval"] = "2s"
    (head.home / "prometheus.yml").write_text(yaml.safe_dump(config))
    files = [f"--config.file={head.home}/prometheus.yml", f"--storage.tsdb.path={head.home}/tsdb"]
    prometheus = head.popen("prometheus", *files, "--web.listen-address=127.0.0.1:9090", "--log.level=error")
    options = ["--preset", "sinusoid-maml", "--steps", "1000000", "--time_limit", "60s", "--test_episodes", "10"]
    job = head.popen("cluster/submit.sh", *options, "--workers", "2", "--output", str(head.home / "submitted"))
    wanted = [query for query, _ in queries() if not query.startswith("label_values")]
    deadline = time.monotonic() + 120
    while wanted and job.poll() is None and time.monotonic() < deadline:
        wanted = [query for query in wanted if not _answer(head, query)]
        time.sleep(1)
    said, _ = job.communicate(timeout=180)
    prometheus.kill()
    assert not wanted, f"no data: {wanted}\n{said}"
    assert job.returncode == 0, said
    (summary,) = (head.home / "submitted").glob("*/summary.json")
    assert f"{json.loads(summary.read_text())['headline']['episodes']} episodes" in said


def _answer(head: Host, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a panel's query, all runs and workers chosen."""
    plain = re.sub(r"\$__\w+", "20s", re.sub(r"\$(?:run|worker)", ".+", query))
    code, said = head.run(
        "curl",
        "--silent",
        "--fail",
        "--get",
        "http://127.0.0.1:9090/api/v1/query",
        "--data",
        urlencode({"query": plain}),
    )
    return list(json.loads(said)["data"]["result"]) if code == 0 else []
