"""What the autoscaler publishes: one schema, which leaves nothing out, with names that are on the wire."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from autoscaler.devices.device import Device, Summary
from autoscaler.published_view import demand_view, node_view
from autoscaler.roster import Phase
from autoscaler.sizing.demand import Demand, TierDemand
from producer.contract.published import (
    JournalEntry,
    NodeSummary,
    PublishedDemand,
    PublishedDevice,
    PublishedNode,
    PublishedSize,
    PublishedSizes,
    PublishedTier,
    ScaleUpConditions,
)

WIRE: dict[type[BaseModel], str] = {
    PublishedSizes: "at policy models",
    PublishedSize: "replicas reason demand one_more hold cooled_at backed_off_until backed_off_for surplus_since",
    ScaleUpConditions: "present tier queued device free_gb hindrance",
    PublishedDemand: "model tiers running quiet_s jobs_per_s load_s free_slots phases suspects suspects_waited_s speeds"
    " left run_s",
    PublishedTier: "tier target_wait_s queued waited_s arrivals_per_s arrived",
    NodeSummary: "host at source total idle reserved allocated faulty memory_gb used_gb free_gb",
    PublishedDevice: "id kind name memory_gb used_gb used_by temperature_c utilisation fault state uuid ecc_errors xids"
    " lost suspect untold others others_gb source workers",
}
"""Names that programs read: in Redis, and in the JSON of ``stoker status`` and ``stoker explain``."""


@pytest.mark.parametrize("record", WIRE, ids=lambda record: record.__name__)
def test_the_names_on_the_wire_stay(record: type[BaseModel]) -> None:
    assert set(WIRE[record].split()) <= record.model_fields.keys()


@pytest.mark.parametrize(
    ("internal", "record"),
    [(Demand, PublishedDemand), (TierDemand, PublishedTier), (Device, PublishedDevice), (Summary, NodeSummary)],
    ids=lambda one: one.__name__,
)
def test_nothing_that_the_autoscaler_knows_is_left_out(internal: type, record: type[BaseModel]) -> None:
    assert {one.name for one in dataclasses.fields(internal)} <= record.model_fields.keys()


def test_a_demand_and_a_node_come_back_as_they_were() -> None:
    tier = TierDemand("batch", 600.0, 3, 1.5, 0.25, 17)
    demand = Demand("m", (tier,), 2, 0.0, 5.0, 20.0, 3, {Phase.READY: 1}, 1, 2.0, {"H200": 5.0}, 2, 0.5)
    view = demand_view(demand)
    assert dataclasses.asdict(demand) == {**view.model_dump(), "tiers": (dataclasses.asdict(tier),)}
    assert PublishedDemand.parse(view.model_dump_json()) == view
    device = Device("cuda:0", "cuda", "H200", 141.0, 3.5, {17: 3.5}, 61.0, 0.5, "hot", xids=(79,), ecc_errors=0)
    node = node_view("h", 5.0, "nvml", [device], [])
    assert (node.host, node.total, node.devices[0].used_by) == ("h", 1, {17: 3.5})
    assert PublishedNode.parse(node.model_dump_json()) == node


@pytest.mark.parametrize("stored", [None, b"", b"rubbish", b"[]", b'{"at": "never"}', b'{"of": "another version"}'])
def test_what_cannot_be_read_counts_as_not_published(stored: bytes | None) -> None:
    assert PublishedSizes.parse(stored) is None
    assert PublishedNode.parse(stored) is None


def test_a_field_of_a_later_version_is_passed_over() -> None:
    sizes = PublishedSizes.parse(b'{"at": 5, "policy": "slack", "models": {}, "mood": "good"}')
    assert sizes == PublishedSizes(at=5.0, policy="slack", models={})


@given(
    at=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    texts=st.lists(st.text(), min_size=5, max_size=5),
    inputs=st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.lists(st.text())),
)
def test_an_entry_of_the_journal_comes_back_as_it_was(at: float, texts: list[str], inputs: dict[str, object]) -> None:
    action, model, worker, device, reason = texts
    entry = JournalEntry(at, action, model, worker, device, reason, inputs=inputs)
    assert set(entry.fields()) == {"at", "action", "model", "worker", "device", "reason", "inputs"}
    stored = {name.encode(): value.encode() for name, value in entry.fields().items()}
    assert JournalEntry.of_fields(stored) == entry
