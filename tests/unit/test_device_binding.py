"""A worker that was started by hand is bound to its device by UUID."""

import pytest

from workers.device_binding import bind


def by_index(index: int) -> str:
    return f"GPU-{index}"


@pytest.mark.parametrize(
    ("device", "visible", "uuid"),
    [
        ("cuda:1", None, "GPU-1"),
        ("cuda:1", "1", "GPU-1"),  # one GPU is given: it is that, however it is called
        ("cuda:0", "3", "GPU-3"),
        ("cuda:1", "4, 6", "GPU-6"),
        ("cuda:1", "GPU-a,GPU-b", "GPU-b"),
        ("cuda:0", "MIG-c", "MIG-c"),
    ],
)
def test_a_gpu_is_counted_by_the_bus_and_bound_by_its_uuid(device: str, visible: str | None, uuid: str) -> None:
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert bind(device, env, by_index) == uuid
    assert env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid}


def test_a_driver_that_does_not_tell_leaves_the_order_of_the_bus() -> None:
    env: dict[str, str] = {}
    assert bind("cuda:1", env, lambda _: "") == ""
    assert env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_another_order_that_was_asked_for_is_left_alone() -> None:
    env = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "1"}
    assert bind("cuda:0", env, by_index) == ""
    assert env == {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "1"}


def test_a_cpu_slot_has_a_uuid_of_its_own_that_stays() -> None:
    env: dict[str, str] = {}
    assert bind("cpu:0", env) == bind("cpu:0", env) != bind("cpu:1", env)
    assert env == {}
