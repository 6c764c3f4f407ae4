"""The gateway: the fleet as a server of the OpenAI API. Needs the extra ``gateway``; ``import producer`` does not.

How to add a route:

- ``app.create_app(settings, loopback=True)`` makes the application and mounts the routers named in ``app.ROUTERS``.
  A file has one ``router = APIRouter()``.
- A route takes what it needs as arguments: ``caller: Caller`` (``access/authentication.py``: the
  :class:`gateway.access.api_key.ApiKey` that the request came with: ``tenant``, ``may_use(model)``,
  ``may_ask(tier)``), and ``client: Client``
  (``state.py``: the process's one :class:`producer.AsyncClient`). Its settings are ``client.settings``.
  A route without a ``caller`` is open to anybody.
- What goes wrong is raised as a :class:`gateway.openai.api_error.Problem`, or as any ``StokerError``:
  ``errors.py`` answers both in OpenAI's form. What belongs to another tenant is not there: 404.
- ``gateway/openai/`` says what OpenAI's requests mean, without HTTP: ``endpoints.ENDPOINTS[path].read(body, settings,
  caller)`` is a ``TranslatedRequest``, with the ``job`` to submit and ``response(job_id, result)`` for what came of it.
  So a line of a batch is the same request as one over HTTP.
- A body is limited to ``gateway.max_body_bytes``, unless its path is in ``body_limit.UPLOADS``.

A gateway is stateless: lasting data is in Redis, and any number of gateways may run.
"""
