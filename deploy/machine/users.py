"""The server that ``stoker up`` starts, and its users: each process has its own, and may do what its role needs.

Their passwords are generated, and kept in files that only the owner of the fleet can read. The server knows hashes.
"""

from __future__ import annotations

import logging
from pathlib import Path

import redis

from producer.contract.fleet.fleet_file import FleetFile
from producer.contract.fleet.settings import Settings

from ..acl import ROLES
from ..acl.users import acl_file, name_of, user
from . import private
from .server import Server

log = logging.getLogger(__name__)


class Users:
    """The users of one server. The user ``default`` may do everything; its URL is the owner's.

    Args:
        home: the folder of the server's data.
        port: of the server.
        file: the fleet file, whose models the roles are about.
        config: further configuration of the server.
    """

    def __init__(self, home: Path, port: int, file: FleetFile, **config: str) -> None:
        self._home = home.absolute()
        self._file, self._seen = file, file.settings
        self._granted = file.settings
        self._passwords = {role: private.kept_password(self._home / "users" / role) for role in ROLES}
        self._admin = private.kept_password(self._home / "password")
        self.server = Server(self._home, port, password=self._admin, aclfile=str(self._acl), **config)
        self._write()

    def environment(self, role: str) -> dict[str, str]:
        """What a process of that role needs in its environment; the autoscaler's names the user of its workers, too."""
        workers = {"STOKER_REDIS__WORKER_URL": self._url("worker")} if role == "autoscaler" else {}
        return {"REDIS_URL": self._url(role), **workers}

    def follow(self) -> None:
        """Let the roles have the models that were added to the fleet file since the last call."""
        if (found := self._file.again()) is not self._seen:
            try:
                self.grant(found)
            except redis.RedisError as error:  # it is being started again, and reads the file then
                log.warning("the users of the server are told of the changed fleet file later: %s", error)
            self._seen = found

    def grant(self, settings: Settings) -> None:
        """Give the roles their rights for the models of these settings, too, without breaking their connections.

        A model that is no longer in the fleet file stays: its workers may still have jobs.
        """
        self._granted = settings.model_copy(update={"models": {**self._granted.models, **settings.models}})
        self._write()
        with redis.Redis.from_url(self.server.url, socket_timeout=5) as client:
            pipe = client.pipeline(transaction=False)
            for role in ROLES:
                rules = user(role, self._granted, self._passwords[role])
                pipe.execute_command("ACL", "SETUSER", name_of(role), "reset", *rules)
            pipe.execute()

    @property
    def _acl(self) -> Path:
        return self._home / "users.acl"

    def _write(self) -> None:
        private.write(self._acl, acl_file(self._granted, self._admin, self._passwords))

    def _url(self, role: str) -> str:
        return self.server.url_of(name_of(role), self._passwords[role])
