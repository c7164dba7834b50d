"""Names in a file of weights, as training programs write them, and names of a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgecv.converters.checkpoints.records import UnknownNetwork
from edgecv.converters.checkpoints.stored_tensors import StoredTensor

COUNTER = ".num_batches_tracked"  # of batch norms; files from before torch 0.4.1 lack it, and nothing computes with it
_ANCHORS = 12  # names of the network by which a prefix is found
# What training programs keep beside the network: losses, metrics, and how many networks an average is made of.
_BESIDE = ("loss", "criterion", "metric", "train_", "val_", "valid_", "test_", "n_averaged")


def matched(
    stored: Mapping[str, StoredTensor], wanted: Collection[str], *, whole: bool = True
) -> dict[str, StoredTensor]:
    """The tensors of a file under the names that a network has; ``whole``: the file must hold nothing else.

    Wrappers put a prefix before every name: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``model.``, ``net.``,
    ``backbone.`` (an attribute of a Lightning module), several of them. A layer that was changed for a chain with one layer of
    weights in it (``fc.1.weight``: dropout, then linear) is that layer: whatever else is in the chain has no weights. A file that
    holds the network twice, or something else beside it, is an ``UnknownNetwork``.
    """
    prefix = _prefix(stored, wanted)
    ours = {name.removeprefix(prefix): item for name, item in stored.items() if name.startswith(prefix)}
    others = [name for name in stored if not name.startswith(prefix) and not name.startswith(_BESIDE)]
    if whole and others:
        raise UnknownNetwork(f"beside the network ({prefix}*) it holds {others[0]}, which may be another head")
    if not prefix:
        ours = {name: item for name, item in ours.items() if name in wanted or not name.startswith(_BESIDE)}
    return _with_plain_layers(ours, wanted)


def _prefix(stored: Mapping[str, StoredTensor], wanted: Collection[str]) -> str:
    anchors = [name for name in wanted if not name.endswith(COUNTER)][:_ANCHORS]
    found = {
        name.removesuffix(anchor)
        for name in stored
        for anchor in anchors
        if name == anchor or name.endswith(f".{anchor}")
    }
    counts = {prefix: sum(f"{prefix}{name}" in stored for name in wanted) for prefix in found}
    best = max(counts.values(), default=0)
    fitting = sorted(prefix for prefix, count in counts.items() if count == best)
    if not fitting or "" in fitting or 2 * best < len(anchors):
        return ""
    if len(fitting) > 1:
        raise UnknownNetwork(f"it holds the network more than once ({'*, '.join(fitting)}*)")
    return fitting[0]


def _with_plain_layers(ours: dict[str, StoredTensor], wanted: Collection[str]) -> dict[str, StoredTensor]:
    """Chains that stand where the network has one layer, as that layer."""
    renamed = dict(ours)
    missing = {name.rpartition(".")[0] for name in wanted if name not in ours and not name.endswith(COUNTER)}
    for layer in sorted(missing):
        inside = [name for name in ours if name.startswith(f"{layer}.") and name not in wanted]
        bases = sorted({name.rpartition(".")[0] for name in inside} - {layer})
        if len(bases) > 1 and all(base.removeprefix(f"{layer}.").isdecimal() for base in bases):
            raise UnknownNetwork(
                f"its {layer} is a chain of several layers ({', '.join(bases)}), and what lies between them is not in the file"
            )
        if len(bases) == 1:
            for name in inside:
                renamed[f"{layer}.{name.rpartition('.')[2]}"] = renamed.pop(name)
    return renamed
