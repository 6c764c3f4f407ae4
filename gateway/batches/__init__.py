"""Offline batches: a file of requests in, a file of answers out, each line run once through any interruption.

``local_file`` runs a batch over local files (``stoker batch``), ``batch_process`` those of the Batch API. Both share
``lines`` (reading lines), ``line_translation`` (from lines to jobs and back), ``in_flight`` and ``submit_loop``.
``parts`` holds the argument why no crash repeats or loses a line.
"""
