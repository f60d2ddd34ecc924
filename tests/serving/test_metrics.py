"""Laws of the metrics: a scrape says what happened, and no client can make it longer."""

from __future__ import annotations

import math
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.families import ARMS, LATENCY_MS, OTHER, PROTOCOLS, WATCHED
from serving.metrics import Metrics
from serving.package import Warmth
from serving.seen import PARTS, Seen
from tests.packages import DIGITS

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "watch-an-endpoint.md"
ALERTS = ROOT / "manifests" / "base" / "alerts.yaml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not here; install the package prometheus to run this"
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@contextmanager
def served(metrics: Metrics) -> Iterator[str]:
    """Serve metrics and return where."""
    port = metrics.serve(0)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        metrics.close()


def scraped(metrics: Metrics) -> Samples:
    """Return what a scraper reads."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Samples:
    """Return the samples of a scrape by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by(samples: Samples, name: str, label: str) -> dict[str, float]:
    """Return the samples of a name summed over all labels but one."""
    found: Counter[str] = Counter()
    for (said, labels), value in samples.items():
        if said == name:
            found[dict(labels)[label]] += value
    return dict(found)


def metrics() -> Metrics:
    """Return metrics at zero."""
    return Metrics(DIGITS, slot="a", version="3", digest="sha256:77", runtime="onnxruntime")


def answered(*, status: int = 200, latency_ms: float = 0.3, arm: str = "champion") -> Seen:
    """Return a request that was answered."""
    seen = Seen({b"x-rollout-arm": arm.encode("latin-1")})
    seen.status, seen.latency_ms = status, latency_ms
    return seen


statuses = st.sampled_from([200, 400, 404, 408, 413, 429, 500, 503])
latencies_ms = st.floats(0, 5000)


@given(st.lists(st.tuples(statuses, latencies_ms, st.sampled_from(PROTOCOLS)), max_size=40))
def test_a_scrape_counts_every_request_once(requests: list[tuple[int, float, str]]):
    """By status, by kind of error and by bucket, the numbers are those of the requests."""
    held = metrics()
    for status, latency_ms, protocol in requests:
        held.observe(answered(status=status, latency_ms=latency_ms), protocol)

    samples = scraped(held)

    assert by(samples, "penstock_requests_total", "status") == Counter(
        str(status) for status, _, _ in requests
    )
    assert by(samples, "penstock_requests_total", "protocol") == Counter(
        protocol for _, _, protocol in requests
    )
    errors = by(samples, "penstock_errors_total", "kind")
    assert errors["busy"] == sum(status in (429, 503) for status, _, _ in requests)
    assert errors["server"] == sum(status == 500 for status, _, _ in requests)
    assert errors["client"] == sum(status in (400, 404, 408, 413) for status, _, _ in requests)
    taken_ms = [latency_ms for status, latency_ms, _ in requests if status < 400]
    buckets = by(samples, "penstock_request_seconds_bucket", "le")
    assert [buckets[le] for le in sorted(buckets, key=float)] == [
        sum(ms <= bound for ms in taken_ms) for bound in (*LATENCY_MS, math.inf)
    ]
    sums = by(samples, "penstock_request_seconds_sum", "mirrored")
    assert sum(sums.values()) == pytest.approx(sum(taken_ms) / 1e3)


def test_a_time_at_a_bound_is_within_it():
    """Prometheus's buckets hold what is less or equal: each bound counts itself and no other."""
    held = metrics()
    for bound_ms in LATENCY_MS:
        held.observe(answered(latency_ms=bound_ms), "v2")

    buckets = by(scraped(held), "penstock_request_seconds_bucket", "le")

    reached = [buckets[le] for le in sorted(buckets, key=float)]
    assert reached == [*range(1, len(LATENCY_MS) + 1), len(LATENCY_MS)]


def test_buckets_reach_from_a_tenth_of_a_millisecond_to_two_seconds():
    """Bounds are written in seconds without rounding, or a rule that names one would miss it."""
    named = {
        dict(labels)["le"]
        for (name, labels) in scraped(metrics())
        if name == "penstock_request_seconds_bucket"
    }

    assert sorted(Decimal(le) for le in named - {"+Inf"}) == [
        Decimal(str(ms)) / 1000 for ms in LATENCY_MS
    ]
    assert {"0.0001", "0.1", "2.0"} <= named


@given(st.lists(st.text(st.characters(max_codepoint=255), min_size=1), max_size=30))
def test_a_client_makes_no_new_series(arms: list[str]):
    """Whatever arms, protocols, statuses and names come, the labels are among those we know."""
    held, before = metrics(), set(scraped(metrics()))
    for number, arm in enumerate(arms):
        seen = answered(arm=arm, status=number * 37)
        seen.fallbacks.append(arm)
        seen.stale = [arm]
        seen.spent_us[arm] = 1.0
        held.observe(seen, arm)

    made = set(scraped(held)) - before

    assert {name for name, _ in made} <= {"penstock_requests_total"}
    for _, labels in made:
        said = dict(labels)
        assert said["arm"] in {*ARMS, OTHER, "none"}
        assert said["protocol"] in {*PROTOCOLS, OTHER}
        assert said["status"] == OTHER or 100 <= int(said["status"]) <= 599


def test_time_is_shown_by_part_and_mirrored_requests_apart():
    """A part's time is its own, and a copy whose answer is dropped spoils no user's latency."""
    held, copy = metrics(), Seen({b"x-rollout-shadow": b"1"})
    copy.status, copy.latency_ms, copy.spent_us = 200, 900.0, {"inference": 250_000.0}
    held.observe(copy, "v2")
    held.observe(answered(), "v2")

    samples = scraped(held)

    counts = by(samples, "penstock_request_seconds_count", "mirrored")
    sums = by(samples, "penstock_request_seconds_sum", "mirrored")
    assert counts == {"false": 1, "true": 1}
    assert sums == {"false": pytest.approx(0.0003), "true": pytest.approx(0.9)}
    parts = by(samples, "penstock_part_seconds_sum", "part")
    assert parts == {part: 0.25 if part == "inference" else 0 for part in PARTS}


@pytest.mark.parametrize("kind", ["values", "cached", "rules", "failed:cached", "failed:rules"])
def test_fallbacks_and_stale_features_are_counted_by_kind_and_name(kind: str):
    """What stood in and what was too old can be told apart."""
    held, seen = metrics(), answered()
    seen.fallbacks, seen.stale = [kind], ("pixels",)
    held.observe(seen, "v1")

    samples = scraped(held)

    assert by(samples, "penstock_fallbacks_total", "kind")[kind] == 1
    assert by(samples, "penstock_stale_features_total", "feature")["pixels"] == 1


def test_ages_and_batches_are_histograms():
    """How old features were, and how many rows the model was run over at once."""
    held = metrics()
    for age_s in (0.5, 90.0, 1e9):
        held.observe_age("capture_ink", age_s)
    for rows in (1, 7):
        held.observe_batch(rows)

    samples = scraped(held)

    ages = by(samples, "penstock_feature_age_seconds_bucket", "le")
    assert (ages["1.0"], ages["60.0"], ages["600.0"], ages["+Inf"]) == (1, 1, 2, 3)
    batches = by(samples, "penstock_batch_rows_bucket", "le")
    assert (batches["1.0"], batches["4.0"], batches["8.0"]) == (1, 1, 2)


def test_ready_says_when_and_the_first_call_what_it_cost():
    """A process is ready once it says so, and not any more while it drains."""
    held = metrics()
    assert scraped(held)["penstock_ready", ()] == 0

    held.became_ready(3.5, [Warmth(batch=8, first_ms=4.0, steady_ms=0.5, rounds=9)])
    samples = scraped(held)
    assert samples["penstock_ready", ()] == 1
    assert samples["penstock_ready_seconds", ()] == 3.5
    assert samples["penstock_first_call_seconds", (("rows", "8"),)] == 0.004
    assert samples["penstock_steady_call_seconds", (("rows", "8"),)] == 0.0005

    held.draining()
    assert scraped(held)["penstock_ready", ()] == 0


def test_the_model_is_named():
    """What is served can be read beside every other number."""
    labels = {
        "workload": "digits",
        "version": "3",
        "slot": "a",
        "digest": "sha256:77",
        "runtime": "onnxruntime",
    }

    assert scraped(metrics())["penstock_model_info", tuple(sorted(labels.items()))] == 1


def test_others_numbers_are_read_at_every_scrape():
    """A number that another part keeps is shown as it is now, by its label where it has one."""
    held, waiting = metrics(), [1, 2]
    held.watch("queue_depth", lambda: len(waiting))
    held.watch("log_records", lambda: {"written": 7, "dropped": 2})
    assert scraped(held)["penstock_queue_depth", ()] == 2

    waiting.clear()
    samples = scraped(held)

    assert samples["penstock_queue_depth", ()] == 0
    assert by(samples, "penstock_log_records_total", "outcome") == {"written": 7, "dropped": 2}


def test_requests_that_were_refused_unread_are_requests_and_errors():
    """What was turned away at the door is in no other count, and it is what a full server does."""
    held, refused = metrics(), Counter({429: 7, 413: 2})
    held.observe(answered(status=503), "v2")
    held.refusals(lambda: refused)

    samples = scraped(held)

    statuses = by(samples, "penstock_requests_total", "status")
    assert statuses == {"429": 7, "413": 2, "503": 1}
    errors = by(samples, "penstock_errors_total", "kind")
    assert errors == {"busy": 8, "client": 2, "server": 0}


def test_a_part_that_cannot_say_hides_no_other_number():
    """One number that cannot be read is left out and counted."""
    held = metrics()
    held.watch("queue_depth", lambda: float("one too many"))
    held.watch("in_flight", lambda: 4)
    held.refusals(lambda: {429: 1}["none"])  # pyright: ignore[reportArgumentType]

    samples = scraped(held)

    assert ("penstock_queue_depth", ()) not in samples
    assert samples["penstock_in_flight", ()] == 4
    unread = by(samples, "penstock_unread_total", "metric")
    assert {name for name, count in unread.items() if count} == {"queue_depth", "refusals"}


def test_a_number_that_there_is_not_is_refused():
    """A misspelt name is a mistake in the wiring and says what there is."""
    with pytest.raises(ValueError, match="no metric 'queue' to watch; there is queue_depth"):
        metrics().watch("queue", lambda: 1)


def test_a_port_answers_the_same_and_what_the_process_takes():
    """Over HTTP come the same numbers, and memory, processor time and open files besides."""
    held = everything()

    with served(held) as url:
        samples = parsed(httpx.get(url).text)

    ours = {name: value for name, value in samples.items() if name[0].startswith("penstock_")}
    assert ours == scraped(held)
    assert samples["process_resident_memory_bytes", ()] > 0


def test_scrapes_are_answered_on_loopback_only():
    """The port of the metrics is not open to other machines."""
    held = metrics()
    with served(held) as url, socket.create_server(("127.0.0.2", int(url.split(":")[2][:-8]))):
        pass  # a server on every address would hold this one too


def test_in_a_pod_scrapes_come_from_elsewhere():
    """Where it is told so, every address of this machine is answered at."""
    held = metrics()
    port = held.serve(0, host="0.0.0.0")
    try:
        assert httpx.get(f"http://127.0.0.2:{port}/metrics").status_code == 200
    finally:
        held.close()


def test_a_scraper_that_says_nothing_stops_no_other():
    """A connection that sends no request holds one thread for a bounded time, and nobody else."""
    held = metrics()
    with served(held) as url, socket.create_connection(("127.0.0.1", int(url.split(":")[2][:-8]))):
        assert httpx.get(url).status_code == 200


def everything() -> Metrics:
    """Return metrics with at least one sample of every family."""
    held = metrics()
    held.became_ready(3.5, [Warmth(batch=1, first_ms=4.0, steady_ms=0.5, rounds=9)])
    held.observe(answered(), "v2")
    held.observe_age("capture_ink", 3)
    for name, declared in WATCHED.items():
        held.watch(name, lambda label=declared.label: {"one": 1} if label else 1)
    return held


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Prometheus's own tool."""
    command = [str(PROMTOOL), *arguments]
    return subprocess.run(
        command, input=text, text=True, capture_output=True, check=False, timeout=60
    )


@needs_promtool
def test_prometheus_finds_nothing_to_complain_of():
    """Names, units and types are as Prometheus's own linter wants them."""
    with served(everything()) as url:
        text = httpx.get(url).text

    said = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_promtool
def test_alerts_fire_on_harm_and_on_nothing_else(tmp_path: Path):
    """Prometheus's own evaluation of every rule, over made series."""
    tests = tmp_path / "alerts.yaml"
    held = Path(__file__).with_name("alerts.yaml").read_text(encoding="utf-8")
    tests.write_text(held.replace("ALERTS", str(ALERTS)), encoding="utf-8")

    said = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(tests)],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert said.returncode == 0, said.stdout + said.stderr


def test_alerts_and_the_guide_name_metrics_that_there_are():
    """Every metric is in the guide, and no alert waits for one that nobody writes."""
    with served(everything()) as url:
        text = httpx.get(url).text
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE penstock_")}

    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in shown if f"`{name}`" not in guide] == []

    words = re.findall("penstock_[a-z_]+", ALERTS.read_text(encoding="utf-8"))
    waited = {word.removesuffix("_bucket") for word in words}
    assert waited
    assert waited <= shown
