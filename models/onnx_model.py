"""A loaded model version: columns in, output fields out, one call of ONNX Runtime for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstream.models.contract import Column, ContractBreach, FieldSpec, ModelContract
from modelstream.models.errors import InferenceError
from modelstream.models.feed import build_feed
from modelstream.models.outputs import read_output
from modelstream.models.session import run_session

__all__ = ["OnnxModel"]


class OnnxModel:
    """One version of a model, ready to predict; `load_model` makes it.

    It keeps no state between calls and may be called from several threads at once; ONNX Runtime releases the GIL.

    Parameters
    ----------
    contract : ModelContract
        What it reads and returns.
    session : onnxruntime.InferenceSession
        The model.
    sample : mapping of str to Column
        Some rows of its output, which say how no rows look.
    notes : tuple of str
        What works but could be better, for a person.

    Examples
    --------
    >>> model = load_model(Path("models"), "arrival_delay")  # doctest: +SKIP
    >>> model.predict({"dep_delay": np.array([12.0]), "distance": np.array([733])}, 1)  # doctest: +SKIP
    {'value': array([4.25], dtype=float32)}
    """

    __slots__ = ("_contract", "_empty", "_notes", "_required_fields", "_session", "_tensors")

    def __init__(
        self, contract: ModelContract, session: Any, sample: Mapping[str, Column], notes: tuple[str, ...] = ()
    ) -> None:
        self._contract = contract
        self._session = session
        self._notes = notes
        self._required_fields = contract.required_fields
        self._empty: dict[str, Column] = {field: column[:0] for field, column in sample.items()}
        # Each tensor once: scores of several classes come from one.
        self._tensors = list(dict.fromkeys(spec.tensor for spec in contract.outputs))

    def __repr__(self) -> str:
        return f"OnnxModel({self.name}@{self.version})"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._contract.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self._contract.version

    @property
    def contract(self) -> ModelContract:
        """What the model reads and returns."""
        return self._contract

    @property
    def required_fields(self) -> tuple[FieldSpec, ...]:
        """Every field that `predict` wants among its columns."""
        return self._required_fields

    @property
    def notes(self) -> tuple[str, ...]:
        """What works but could be better, for a person to read."""
        return self._notes

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        """Return the output fields of every row.

        Parameters
        ----------
        columns : mapping of str to Column
            At least the required fields. A column that already has the tensor's type, shape and order is not copied.
        n_rows : int
            Rows of the batch; 0 is answered without the model.

        Returns
        -------
        dict of str to Column
            In the order of the contract: values (n_rows,), labels (n_rows,) as int64 or a list of text, scores
            (n_rows,) as float32, vectors (n_rows, n_values). What is not finite is left for `non_finite_rows` to find.

        Raises
        ------
        InferenceError
            If a column does not fit, or ONNX Runtime fails, or the result is not what the contract says.
        """
        if not n_rows:
            return dict(self._empty)
        contract = self._contract
        try:
            results = run_session(self._session, self._tensors, build_feed(contract.inputs, columns, n_rows))
            by_tensor = dict(zip(self._tensors, results, strict=True))
            return {spec.field: read_output(spec, by_tensor[spec.tensor], n_rows) for spec in contract.outputs}
        except ContractBreach as error:
            raise InferenceError(contract.name, contract.version, str(error)) from error.__cause__
