"""Several models of a stage that depend on each other: in which order they are asked, about which rows, with what.

All that does not depend on data is worked out once: the order, which columns each model reads, which answers may be
partial. On a batch only masks and columns move; a model without rows to see is not called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.models.errors import ModelUnavailable
from modelstream.models.outputs import non_finite_rows
from modelstream.operators.answers import Answer, Fields, Mask, OutputSchema, both, either, scatter, selected
from modelstream.operators.cascade import Cascade, CascadePlan
from modelstream.operators.dependencies import dependencies, evaluation_order, gates
from modelstream.operators.ensemble import Combiner, Ensemble
from modelstream.operators.model_call import ModelCall
from modelstream.operators.wiring import Wiring, check_fields, stack_wiring

__all__ = ["ModelGraph"]


@dataclass(frozen=True, slots=True)
class _ModelNode:
    """A model, or an ensemble that stacks others with a model."""

    name: str
    call: ModelCall
    wiring: Wiring
    #: Cascades that hand rows to it, and as which step; it sees what one of them hands on. None: all rows.
    gates: tuple[tuple[str, int], ...]
    partial: bool
    empty: Fields

    def evaluate(self, run: _Run) -> Answer:
        mask = self._mask(run)
        if mask is not None and mask.all():
            mask = None
        rows = None if mask is None else np.flatnonzero(mask)
        n_rows = run.n_rows if rows is None else len(rows)
        if not n_rows:
            return Answer(self._fillers(run.n_rows), mask)
        columns = {name: run.columns[source] for name, source in self.wiring.columns.items()}
        columns |= {name: run.packed(places) for name, places in self.wiring.reads.items()}
        try:
            fields = self.call(columns if rows is None else selected(columns, rows), n_rows)
        except ModelUnavailable:
            if not self.partial:
                raise
            refused = np.ones(run.n_rows, np.bool_) if mask is None else mask
            return Answer(self._fillers(run.n_rows), ~np.ones(run.n_rows, np.bool_), refused)
        if rows is None:
            return Answer(fields)
        return Answer({name: scatter(column, rows, run.n_rows) for name, column in fields.items()}, mask)

    def _mask(self, run: _Run) -> Mask:
        masks = [run.sound(name) for name in self.wiring.nodes]
        masks += [np.asarray(run.columns[key], np.bool_) for key in self.wiring.masks]
        if self.gates:
            masks.append(either([run.handed(*gate) for gate in self.gates]))
        return both(*masks)

    def _fillers(self, n_rows: int) -> Fields:
        return {name: scatter(column, np.zeros(0, np.intp), n_rows) for name, column in self.empty.items()}


@dataclass(frozen=True, slots=True)
class _EnsembleNode:
    name: str
    combiner: Combiner
    members: tuple[str, ...]
    partial: bool
    empty: Fields

    def evaluate(self, run: _Run) -> Answer:
        answers = [run.answers[member].fields for member in self.members]
        return Answer(self.combiner(answers), both(*(run.sound(member) for member in self.members)))


@dataclass(frozen=True, slots=True)
class _CascadeNode:
    name: str
    plan: CascadePlan
    partial: bool
    empty: Fields

    def evaluate(self, run: _Run) -> Answer:
        steps = self.plan.steps
        fields, step = self.plan.merge(
            [run.answers[name].fields for name in steps], [run.reached(self.name, k) for k in range(1, len(steps))]
        )
        return Answer(fields, run.answers[steps[0]].answered, None, step)


_Node = _ModelNode | _EnsembleNode | _CascadeNode


@dataclass(slots=True)
class _Run:
    """What is known of one batch so far."""

    columns: Mapping[str, Column]
    n_rows: int
    plans: Mapping[str, CascadePlan]
    reject_non_finite: bool
    answers: dict[str, Answer] = field(default_factory=dict)
    _sound: dict[str, Mask] = field(default_factory=dict)
    _handed: dict[tuple[str, int], NDArray[np.bool_]] = field(default_factory=dict)

    def sound(self, name: str) -> Mask:
        """Return the rows with an answer that others may read."""
        if name not in self._sound:
            answer = self.answers[name]
            mask = answer.answered
            if self.reject_non_finite and (bad := non_finite_rows(answer.fields)).any():
                mask = both(mask, ~bad)
            self._sound[name] = mask
        return self._sound[name]

    def handed(self, cascade: str, k: int) -> NDArray[np.bool_]:
        """Return the rows that a cascade hands to its step `k`, 1 or more: those that the one before is unsure of."""
        key = cascade, k
        if key not in self._handed:
            plan = self.plans[cascade]
            before = self.sound(plan.steps[0]) if k == 1 else self.reached(cascade, k - 1)
            fields = self.answers[plan.steps[k - 1]].fields
            if before is None or before.all():
                self._handed[key] = plan.unsure(fields, self.n_rows)
            else:
                rows = np.flatnonzero(before)
                mask = np.zeros(self.n_rows, np.bool_)
                mask[rows] = plan.unsure(selected(fields, rows), len(rows))
                self._handed[key] = mask
        return self._handed[key]

    def reached(self, cascade: str, k: int) -> NDArray[np.bool_]:
        """Return the rows that the cascade's step `k`, 1 or more, was handed and has answered to."""
        mask = both(self.handed(cascade, k), self.sound(self.plans[cascade].steps[k]))
        assert mask is not None
        return mask

    def packed(self, places: Sequence[tuple[str, str]]) -> Column:
        """Return one output field, or several side by side as a vector."""
        columns = [self.answers[name].fields[output] for name, output in places]
        return columns[0] if len(columns) == 1 else np.column_stack(columns)


class ModelGraph:
    """Asks the models of a stage about a batch, one after the other.

    Parameters
    ----------
    calls : sequence of ModelCall
        The models.
    ensembles : sequence of Ensemble
        What is made of several answers.
    cascades : sequence of Cascade
        Which models see only the rows that others are unsure of.
    stacked : mapping of str to ModelCall
        The model of each ensemble that stacks others, by the ensemble's name.
    earlier : mapping of str to OutputSchema
        What the stages before answer.
    reject_non_finite : bool
        Whether a row is lost where a model has no finite answer, so that no other model need see it.

    Raises
    ------
    ConfigError
        Names are not known or not unique, or answers do not fit where they are read. Its path is one within ``infer``.
    """

    def __init__(
        self,
        calls: Sequence[ModelCall],
        ensembles: Sequence[Ensemble] = (),
        cascades: Sequence[Cascade] = (),
        stacked: Mapping[str, ModelCall] | None = None,
        earlier: Mapping[str, OutputSchema] | None = None,
        reject_non_finite: bool = True,
    ) -> None:
        self._earlier = earlier or {}
        self._reject = reject_non_finite
        self.calls = {call.name: call for call in calls} | dict(stacked or {})
        self._ensembles = {ensemble.name: ensemble for ensemble in ensembles}
        self._cascades = {cascade.name: cascade for cascade in cascades}
        names = [call.name for call in calls] + [one.name for one in ensembles] + [one.name for one in cascades]
        self._names = names
        self._plans: dict[str, CascadePlan] = {}
        self._nodes: dict[str, _Node] = {}
        self.wirings = {name: self._wired(name) for name in self.calls}
        self._gates = gates({cascade.name: cascade.steps for cascade in cascades})
        reads = dependencies(
            {call.name: self.wirings[call.name].nodes for call in calls},
            {ensemble.name: ensemble.members for ensemble in ensembles},
            {cascade.name: cascade.steps for cascade in cascades},
        )
        for name in evaluation_order(reads):
            self._nodes[name] = self._node(name)

    @property
    def schema(self) -> dict[str, OutputSchema]:
        """What the answers look like, by name: models, then ensembles, then cascades."""
        return {name: OutputSchema(_told(self._nodes[name]), self._nodes[name].partial) for name in self._names}

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> list[Fields]:
        """Return all answers as columns, in the order of `schema`; see `Answer.flat`.

        Parameters
        ----------
        columns : mapping of str to Column
            The columns that the models read.
        n_rows : int
            Rows of the columns.

        Raises
        ------
        InferenceError
            As a model raised it.
        """
        run = _Run(columns, n_rows, self._plans, self._reject)
        for name, node in self._nodes.items():
            run.answers[name] = node.evaluate(run)
        return [run.answers[name].flat(n_rows, self._nodes[name].partial) for name in self._names]

    def _wired(self, name: str) -> Wiring:
        if (ensemble := self._ensembles.get(name)) is None:
            return Wiring.of(self.calls[name], self._names, self._earlier)
        return Wiring({}, nodes=ensemble.members)  # what of them is worked out when it is known what they answer

    def _node(self, name: str) -> _Node:
        if name in self._cascades:
            return self._cascade_node(self._cascades[name])
        if name in self._ensembles and name not in self.calls:
            return self._ensemble_node(self._ensembles[name])
        call, samples = self.calls[name], {other: node.empty for other, node in self._nodes.items()}
        if name in self._ensembles:
            members = {member: samples[member] for member in self._ensembles[name].members}
            self.wirings[name] = stack_wiring(call, members)
        wiring, handing = self.wirings[name], self._gates.get(name, ())
        check_fields(call, wiring, samples, self._earlier)
        partial = bool(handing or wiring.masks) or any(self._nodes[other].partial for other in wiring.nodes)
        return _ModelNode(name, call, wiring, handing, partial, call.empty())

    def _ensemble_node(self, ensemble: Ensemble) -> _EnsembleNode:
        members = [self._nodes[member] for member in ensemble.members]
        combiner = Combiner(ensemble, [node.empty for node in members])
        empty = combiner([node.empty for node in members])
        return _EnsembleNode(ensemble.name, combiner, ensemble.members, any(node.partial for node in members), empty)

    def _cascade_node(self, cascade: Cascade) -> _CascadeNode:
        plan = self._plans[cascade.name] = CascadePlan(cascade, [self._nodes[step].empty for step in cascade.steps])
        samples = [self._nodes[step].empty for step in cascade.steps]
        empty, _ = plan.merge(samples, [np.zeros(0, np.bool_)] * (len(samples) - 1))
        return _CascadeNode(cascade.name, plan, self._nodes[cascade.steps[0]].partial, empty)


def _told(node: _Node) -> Fields:
    """Return how an answer looks from outside of the stage: that of a cascade names the model too."""
    return {"model": [], **node.empty} if isinstance(node, _CascadeNode) else node.empty
