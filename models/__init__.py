"""What a model is: its contract, how it is loaded and checked, and how it predicts. Pure and synchronous.

A model version is a directory ``NAME/VERSION`` with ``model.onnx`` and ``model.toml``. The least that the latter says
is which file it speaks of::

    name = "arrival_delay"
    version = "1"
    sha256 = "…"                         # of model.onnx

Then every input is filled from the field of its own name, and the outputs are worked out. The rest can be said::

    [inputs.features]                    # an input tensor, and the scalar fields packed into it
    fields = ["dep_delay", "distance"]
    [inputs.x]                           # or one vector field
    field = "readings"
    width = 20                           # where the graph leaves it open; "any" for rows of any length

    [outputs.score]                      # a field of the prediction
    tensor = "probabilities"             # where there are several outputs
    kind = "score"                       # value, label, score or vector; by default the field's name
    class = "late"                       # whose score; by default the largest counts, which is the label's own
    classes = ["late", "on time"]        # the tensor's columns, where they are not 0, 1, 2, …

    [examples]                           # for models that take certain values only
    carrier = ["AA", "UA"]

    [metrics]                            # free tables
    [training]
"""

from __future__ import annotations

from modelstream.models.contract import (
    ANY_WIDTH,
    DType,
    FieldSpec,
    InputSpec,
    ModelContract,
    OutputKind,
    OutputSpec,
    merge_fields,
)
from modelstream.models.cost import CostModel
from modelstream.models.loading import DEFAULT_MAX_BYTES, load_model
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.outputs import non_finite_rows
from modelstream.models.registry import ModelVersion, find_version, list_models, version_key
from modelstream.models.threads import cpu_budget

__all__ = [
    "ANY_WIDTH",
    "DEFAULT_MAX_BYTES",
    "CostModel",
    "DType",
    "FieldSpec",
    "InputSpec",
    "ModelContract",
    "ModelVersion",
    "OnnxModel",
    "OutputKind",
    "OutputSpec",
    "cpu_budget",
    "find_version",
    "list_models",
    "load_model",
    "merge_fields",
    "non_finite_rows",
    "version_key",
]
