"""Live sources that come back: each camera is read in a worker process that can be killed.

``source.SupervisedSource`` is the public class; ``worker`` is what the process runs; between the two stand a socket with
small messages (``wire``) and frames in shared memory (``ring``). ``worker_process`` starts and ends the process, ``failures``
says why it ended, ``retry`` when to try again.
"""
