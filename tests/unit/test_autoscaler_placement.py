from hypothesis import given
from hypothesis import strategies as st

from autoscaler.devices.device import Device, DeviceState
from autoscaler.devices.placement import Occupant, blocker, by_device, free_gb, occupants, place, summary, with_states
from autoscaler.roster import Phase, Worker
from producer.contract.fleet.fleet_schema import Model

MODELS = {"m": Model(engine="echo", memory_gb=10), "n": Model(engine="echo", memory_gb=10)}


def gpu(index: int, memory: float = 80, **more: object) -> Device:
    return Device(f"cuda:{index}", "cuda", "GPU", memory, **more)  # type: ignore[arg-type]  # by name


def slot(index: int, memory: float = 4) -> Device:
    return Device(f"cpu:{index}", "cpu", "slot", memory)


def worker(name: str, device: str, phase: Phase = Phase.READY, model: str = "m", pid: int = 1) -> Worker:
    return Worker(name, model, device, phase, True, 0.0, pid)


def test_a_cpu_slot_takes_one_worker() -> None:
    held = occupants([worker("a", "cpu:0")], [slot(0), slot(1)], MODELS)
    found = place("n", 1, [slot(0), slot(1)], by_device(held))
    assert found is not None
    assert found.id == "cpu:1"
    assert place("n", 1, [slot(0)], by_device(held)) is None


def test_a_slot_too_small_is_no_place() -> None:
    assert place("n", 8, [slot(0, 4)], {}) is None
    assert "4 GB in all of 8 GB" in blocker("n", 8, slot(0, 4), ())


def test_the_tightest_gpu_that_fits_is_taken() -> None:
    found = place("n", 20, [gpu(0, 80), gpu(1, 24), gpu(2, 16)], {})
    assert found is not None
    assert found.id == "cuda:1"


def test_small_models_share_a_gpu_where_whole_ones_are_to_be_kept_for_large_ones() -> None:
    devices = [gpu(0), gpu(1)]
    held = (Occupant("a", "m", "cuda:0", 30),)
    found = place("n", 10, devices, by_device(held), others_gb=[10, 70])
    assert found is not None
    assert found.id == "cuda:0"
    assert place("large", 70, devices, by_device((*held, Occupant("b", "n", "cuda:0", 10)))) is not None


def test_where_no_large_model_needs_it_each_small_one_has_a_gpu_of_its_own() -> None:
    held = (Occupant("a", "m", "cuda:0", 30),)
    found = place("n", 10, [gpu(0), gpu(1)], by_device(held), others_gb=[10, 30])
    assert found is not None
    assert found.id == "cuda:1"


def test_a_gap_that_is_kept_for_a_model_is_not_cut_for_a_smaller_one() -> None:
    # 30 GB are left on the one, which a model of 30 could have; 25 on the other, which none but small ones could.
    held = (Occupant("a", "x", "cuda:0", 50), Occupant("b", "y", "cuda:1", 55))
    found = place("n", 10, [gpu(0), gpu(1)], by_device(held), others_gb=[10, 30])
    assert found is not None
    assert found.id == "cuda:1"


def test_several_small_workers_share_a_gpu_up_to_its_memory() -> None:
    held: tuple[Occupant, ...] = ()
    for n in range(8):
        device = place(f"small{n}", 10, [gpu(0)], by_device(held))
        assert device is not None
        held = (*held, Occupant(f"small{n}", f"small{n}", device.id, 10))
    assert place("small8", 10, [gpu(0)], by_device(held)) is None


def test_of_one_model_as_many_share_a_gpu_as_it_says() -> None:
    held: tuple[Occupant, ...] = ()
    for n in range(3):
        assert place("m", 10, [gpu(0)], by_device(held), per_gpu=3) is not None
        held = (*held, Occupant(f"m{n}", "m", "cuda:0", 10))
    assert place("m", 10, [gpu(0)], by_device(held), per_gpu=3) is None
    assert blocker("m", 10, gpu(0), held, 3) == "cuda:0 has 3 replicas already"
    spread = place("m", 10, [gpu(0), gpu(1)], by_device(held[:1]), per_gpu=3)
    assert spread is not None
    assert spread.id == "cuda:1"


def test_the_faster_type_is_taken_and_one_that_was_never_tried_before_it() -> None:
    fast = Device("cuda:1", "cuda", "H200", 141)
    devices = [gpu(0, 80), fast]
    for speeds, chosen in (
        ({"GPU": 4.0, "H200": 9.0}, "cuda:1"),
        ({"GPU": 9.0, "H200": 4.0}, "cuda:0"),
        ({"GPU": 9.0}, "cuda:1"),
        ({}, "cuda:0"),  # nothing known: the smaller gap
    ):
        found = place("n", 10, devices, {}, speeds=speeds)
        assert found is not None
        assert found.id == chosen


def test_the_headroom_is_left_idle_and_what_is_in_use_may_be_shared() -> None:
    devices = [gpu(0), gpu(1)]
    assert place("n", 10, devices, {}, headroom=1) is not None
    held = (Occupant("a", "m", "cuda:0", 10),)
    found = place("n", 10, devices, by_device(held), headroom=1)
    assert found is not None
    assert found.id == "cuda:0"
    assert place("m", 10, devices, by_device(held), headroom=1) is None
    assert place("n", 75, devices, by_device(held), headroom=1) is None
    assert place("n", 10, [gpu(0), gpu(1, fault="hot")], {}, headroom=1) is None


def test_a_summary_counts_states_and_the_memory_that_is_left() -> None:
    devices = with_states([gpu(0, used_gb=12), gpu(1), gpu(2, fault="hot"), slot(0)], [worker("a", "cuda:0")])
    found = summary(devices, occupants([worker("a", "cuda:0")], devices, MODELS))
    assert (found.total, found.idle, found.allocated, found.reserved, found.faulty) == (4, 2, 1, 0, 1)
    assert (found.memory_gb, found.used_gb, found.free_gb) == (244, 12, 80 - 12 + 80 + 4)


def test_a_faulty_gpu_is_never_taken() -> None:
    assert place("n", 1, [gpu(0, fault="lost")], {}) is None


def test_two_models_share_a_gpu_and_two_replicas_of_one_do_not() -> None:
    held = occupants([worker("a", "cuda:0")], [gpu(0)], MODELS)
    assert place("n", 10, [gpu(0)], by_device(held)) is not None
    assert place("m", 10, [gpu(0)], by_device(held)) is None


def test_memory_that_others_use_is_not_ours() -> None:
    assert free_gb(gpu(0, 80, used_gb=30), ()) == 50


def test_a_loading_worker_is_debited_what_it_will_need_beside_what_others_use() -> None:
    # 30 GB used: 1 GB by our worker, which will want 10, and 29 by somebody else.
    device = gpu(0, 80, used_gb=30, used_by={7: 1.0})
    held = occupants([worker("a", "cuda:0", Phase.LOADING, pid=7)], [device], MODELS)
    assert free_gb(device, held) == 80 - 29 - 10


def test_without_figures_by_process_a_ready_worker_is_taken_to_use_what_it_declared() -> None:
    device = gpu(0, 80, used_gb=30)
    held = occupants([worker("a", "cuda:0")], [device], MODELS)
    assert free_gb(device, held) == 80 - 20 - 10


def test_a_worker_that_uses_more_than_it_declared_is_debited_what_it_uses() -> None:
    device = gpu(0, 80, used_gb=25, used_by={1: 25.0})
    held = occupants([worker("a", "cuda:0")], [device], MODELS)
    assert free_gb(device, held) == 55


def test_a_draining_worker_holds_its_slot() -> None:
    held = occupants([worker("a", "cpu:0", Phase.DRAINING)], [slot(0)], MODELS)
    assert place("n", 1, [slot(0)], by_device(held)) is None


def test_states_follow_the_workers() -> None:
    devices = [slot(0), slot(1), slot(2), gpu(0, fault="lost")]
    workers = [worker("a", "cpu:1", Phase.LOADING), worker("b", "cpu:2"), worker("c", "cuda:0")]
    assert [device.state for device in with_states(devices, workers)] == [
        DeviceState.IDLE,
        DeviceState.RESERVED,
        DeviceState.ALLOCATED,
        DeviceState.FAULTY,
    ]


@given(
    sizes=st.lists(st.floats(1, 100), min_size=1, max_size=5),
    used=st.lists(st.floats(0, 100), min_size=5, max_size=5),
    wanted=st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.1, 50)), max_size=20),
)
def test_memory_is_never_oversubscribed(sizes: list[float], used: list[float], wanted: list[tuple[str, float]]) -> None:
    devices = [gpu(n, size, used_gb=min(size, used[n])) for n, size in enumerate(sizes)]
    held: tuple[Occupant, ...] = ()
    for n, (name, memory) in enumerate(wanted):
        if device := place(name, memory, devices, by_device(held)):
            held = (*held, Occupant(f"{name}{n}", name, device.id, memory))
    for device in devices:
        taken = sum(tenant.memory_gb for tenant in held if tenant.device == device.id)
        assert device.used_gb is not None
        assert device.memory_gb is not None
        assert device.used_gb + taken <= device.memory_gb + 1e-6
