"""The answers of a stage into its batch: to the rows that they belong to, with the rows rejected that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ModelUnavailable
from modelstream.models.outputs import non_finite_rows
from modelstream.operators.answers import ASKED, STEP, Fields, scatter
from modelstream.operators.batch import EventBatch, Fault, ModelOutput
from modelstream.operators.cascade import Cascade
from modelstream.operators.circuit import Circuit
from modelstream.operators.ensemble import Ensemble, joined_version
from modelstream.operators.model_call import ModelCall

__all__ = ["Output", "outputs_of"]


@dataclass(frozen=True, slots=True)
class Output:
    """One answer of a stage.

    Parameters
    ----------
    step_id : str
        The stage.
    name : str
        What the answer stands under.
    told : str
        What it is of, for faults.
    version : str
        Version of the model, or of the models it is made of.
    reject_non_finite : bool
        Whether rows are rejected in which it is not finite.
    circuit : Circuit, optional
        When its model is left alone.
    steps : tuple of (str, str)
        Of a cascade: name and version of each step.
    """

    step_id: str
    name: str
    told: str
    version: str
    reject_non_finite: bool
    circuit: Circuit | None = None
    steps: tuple[tuple[str, str], ...] = ()

    def write(self, batch: EventBatch, rows: NDArray[np.intp] | None, fields: Fields) -> None:
        """Add the answer to a batch.

        Parameters
        ----------
        batch : EventBatch
            Gets the output, and the faults.
        rows : ndarray of int, optional
            Which rows of the batch the fields are about; None for all.
        fields : mapping of str to Column
            The answer, as `Answer.flat` makes it.
        """
        asked = fields.get(ASKED)
        if isinstance(asked, np.ndarray) and np.isnan(asked).any():
            self._refuse(batch, rows, np.isnan(asked))
        if self.reject_non_finite:
            self._reject(batch, rows, fields)
        if rows is not None:
            fields = {name: scatter(column, rows, len(batch)) for name, column in fields.items()}
        if ASKED not in fields and STEP not in fields:
            batch.outputs[self.name] = ModelOutput(self.version, fields)
        else:
            self._write_partial(batch, fields)

    def _write_partial(self, batch: EventBatch, fields: Fields) -> None:
        fields = dict(fields)
        asked, step = fields.pop(ASKED, None), fields.pop(STEP, None)
        answered = None if asked is None else np.asarray(asked) == 1
        version: str | list[str] = self.version
        if step is not None:
            steps = np.asarray(step).tolist()
            names, versions = ([one[i] for one in self.steps] for i in (0, 1))
            version = list(map(versions.__getitem__, steps))
            fields = {"model": list(map(names.__getitem__, steps)), **fields}
        batch.outputs[self.name] = ModelOutput(version, fields, answered)

    def _reject(self, batch: EventBatch, rows: NDArray[np.intp] | None, fields: Fields) -> None:
        for name, column in fields.items():
            if name == ASKED:
                continue
            for row in non_finite_rows({name: column}).nonzero()[0].tolist():
                detail = f"{self.told}: output {name!r} is not finite"
                batch.reject(row if rows is None else int(rows[row]), Fault(self.step_id, "non_finite", detail))

    def _refuse(self, batch: EventBatch, rows: NDArray[np.intp] | None, refused: NDArray[np.bool_]) -> None:
        assert self.circuit is not None  # or no row would have been refused
        detail = str(self.circuit.unavailable())
        for row in (np.flatnonzero(refused) if rows is None else rows[refused]).tolist():
            batch.reject(row, Fault(self.step_id, "model_unavailable", detail, ModelUnavailable.__name__))


def outputs_of(
    step_id: str,
    calls: Sequence[ModelCall],
    ensembles: Sequence[Ensemble],
    cascades: Sequence[Cascade],
    stacked: Mapping[str, ModelCall],
    *,
    reject_non_finite: bool,
) -> tuple[Output, ...]:
    """Return the outputs of a stage, in their order: of models, ensembles and cascades."""
    versions = {call.name: call.model.version for call in calls}
    plain = dict.fromkeys(versions, True)
    outputs = [
        Output(step_id, call.name, f"model {call.told}", call.model.version, reject_non_finite, call.circuit)
        for call in calls
    ]
    for cascade in cascades:
        versions[cascade.name] = joined_version(cascade.steps, versions, plain)
        plain[cascade.name] = False
    waiting = list(ensembles)
    while waiting:  # members may be ensembles that stand further below; there is no circle
        one = next(one for one in waiting if all(member in versions for member in one.members))
        waiting.remove(one)
        versions[one.name], plain[one.name] = joined_version(one.members, versions, plain), False
        if one.model is not None:
            versions[one.name] += f"+{one.model.name}@{one.model.version}"
    for one in ensembles:
        call = stacked.get(one.name)
        told, circuit = (f"model {call.told}", call.circuit) if call else (f"ensemble {one.name}", None)
        outputs.append(Output(step_id, one.name, told, versions[one.name], reject_non_finite, circuit))
    for cascade in cascades:
        # Whatever is not finite in it is so in the answer of a step.
        steps = tuple((step, versions[step]) for step in cascade.steps)
        outputs.append(
            Output(step_id, cascade.name, f"cascade {cascade.name}", versions[cascade.name], False, None, steps)
        )
    return tuple(outputs)
