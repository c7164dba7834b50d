"""EdgeCV beside other tools on the same video: each in a process of its own, in turns, in one run.

``python -m edgecv.benchmarks.lab peers`` (``make bench-peers``) compares;
``programs/`` and ``ultralytics_predict`` are the other sides.
"""
