"""Which addresses webhooks may go to, and how they are signed."""

import base64
import ipaddress

import pytest

from gateway.webhooks import webhook
from gateway.webhooks.target import ForbiddenTarget, check_policy, is_public
from gateway.webhooks.webhook import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  everybody knows this one


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "198.18.0.1", "192.0.2.1",
        "fec0::1", "64:ff9b:1::a00:1", "::ffff:0:10.0.0.1", "5f00::1", "192.0.0.8", "2001::1", "2001:db8::1", "3fff::1",
        "2002:808:808::", "192.88.99.1", "100::1", "4000::1", "240.0.0.1",
    ],
)  # fmt: skip
def test_others_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "exempt"),
    [
        ("http://10.0.0.1:8080/", "10.0.0.1:8080"),
        ("https://10.0.0.1/", "10.0.0.1"),
        ("http://10.0.0.1:9000/", "10.0.0.1:*"),
        ("https://[fd00::1]:8443/", "[fd00::1]:8443"),
    ],
)
def test_a_host_is_exempt_by_its_port(url: str, exempt: str) -> None:
    check_policy(url, {exempt})
    for other in ({"10.0.0.1:1", "[fd00::1]"}, {"10.0.0.2:*"}):
        with pytest.raises(ForbiddenTarget):
            check_policy(url, other)


def test_a_signature_is_that_of_the_specification() -> None:
    # https://github.com/standard-webhooks/standard-webhooks: the example that its libraries are tested with.
    hook = Webhook(url="https://example.com/", secret=SECRET)
    headers = webhook.headers(hook, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_attempts_are_further_and_further_apart_and_end() -> None:
    pauses = [webhook.again_s(failures) for failures in range(1, len(webhook.AGAIN_S) + 2)]
    assert pauses[-1] is None
    assert sorted(webhook.AGAIN_S) == list(webhook.AGAIN_S)
    assert sum(webhook.AGAIN_S) < 86_400  # while results are kept by default


def test_a_secret_is_shown_nowhere() -> None:
    secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert secret not in repr(Webhook(url="https://example.com/", secret=secret))
