"""The API keys in Redis: created, listed and revoked by an operator, looked up by gateways."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING

from producer.contract import keys
from producer.contract.errors import ConfigError
from producer.contract.heartbeat import text

from .api_key import ApiKey, digest

if TYPE_CHECKING:
    from redis import Redis

ADMIT_LUA = files(__package__).joinpath("admit.lua").read_text()


def add(redis: Redis, secret: str, key: ApiKey) -> None:
    """Store a new key."""
    redis.hset(keys.api_keys(), digest(secret), key.model_dump_json())


def read_all(redis: Redis) -> list[ApiKey]:
    """Every key ever made, oldest first."""
    return sorted(_stored(redis).values(), key=lambda key: (key.created_at, key.id))


def revoke(redis: Redis, key_id: str) -> ApiKey:
    """Refuse a key from now on. It stays listed, so that its past jobs can be attributed.

    Raises:
        ConfigError: no key has that id.
    """
    for name, key in _stored(redis).items():
        if key.id == key_id:
            revoked = key.model_copy(update={"revoked_at": key.revoked_at or int(time.time())})
            redis.hset(keys.api_keys(), name, revoked.model_dump_json())
            return revoked
    raise ConfigError(f"no API key has the id {key_id!r}; 'stoker keys list' shows those there are")


def is_revoked(redis: Redis, key_id: str) -> bool:
    """Whether the key with that id was revoked. One that is not there, as while no key existed, was not."""
    return any(key.id == key_id and key.revoked_at is not None for key in _stored(redis).values())


def _stored(redis: Redis) -> dict[str, ApiKey]:
    found = redis.hgetall(keys.api_keys())
    return {text(name): ApiKey.model_validate_json(stored) for name, stored in found.items()}
