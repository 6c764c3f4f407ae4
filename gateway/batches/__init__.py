"""Offline batches: a file of requests in, a file of answers out, whatever interrupts it, and each line paid for once.

``local`` runs one over files of this machine (``stoker batch``); ``runner`` those that came over the Batch API. They
share ``lines`` (what a line is), ``terms`` (what it asks for), ``flight`` and ``fly`` (what is submitted and not yet
answered). ``parts`` says why no crash repeats or loses a line.
"""
