"""Programs that run in a peer's own environment: started by their path, they import nothing of EdgeCV.

Each prints one JSON document: ``fps``, ``frames``, ``counts`` (boxes of each frame). The clock starts with the first result, so
loading and the first inference do not count against the peer.
"""
