"""EdgeCV beside other tools on the same video: each in a process of its own, in turns, in one run.

``python -m edgecv.benchmarks.lab peers --bundle B.ecv --video vtest.avi`` compares; ``ultralytics_predict`` is the other side.
"""
