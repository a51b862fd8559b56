"""A loaded model version: columns in, output fields out, one call of ONNX Runtime for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstream.models.contract import Column, ContractBreach, FieldSpec, ModelContract
from modelstream.models.errors import InferenceError, InferenceTimeout
from modelstream.models.feed import build_feed
from modelstream.models.outputs import read_output
from modelstream.models.session import run_rows, run_session
from modelstream.models.watchdog import CallTimeout

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
    notes : tuple of str, optional
        What works but could be better, for a person.
    timeout_s : float, optional
        Seconds that a call of `predict` may take in ONNX Runtime.
    padding_is_neutral : bool, optional
        Whether zeros at the end of rows of any length leave its predictions as they are.

    Examples
    --------
    >>> model = load_model(Path("models"), "arrival_delay")  # doctest: +SKIP
    >>> model.predict({"dep_delay": np.array([12.0]), "distance": np.array([733])}, 1)  # doctest: +SKIP
    {'value': array([4.25], dtype=float32)}
    """

    __slots__ = (
        "_contract",
        "_empty",
        "_notes",
        "_padding_is_neutral",
        "_required_fields",
        "_run",
        "_session",
        "_tensors",
        "_timeout_s",
    )

    def __init__(
        self,
        contract: ModelContract,
        session: Any,
        sample: Mapping[str, Column],
        notes: tuple[str, ...] = (),
        *,
        timeout_s: float | None = None,
        padding_is_neutral: bool = True,
    ) -> None:
        self._contract = contract
        self._session = session
        self._notes = notes
        self._timeout_s = timeout_s
        self._padding_is_neutral = padding_is_neutral
        self._run = run_rows if contract.row_by_row else run_session
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

    @property
    def padding_is_neutral(self) -> bool:
        """Whether rows of different lengths may share a call, padded with zeros; True where no field has any length."""
        return self._padding_is_neutral

    def with_timeout(self, timeout_s: float | None) -> OnnxModel:
        """Return the same model, on the same session, with another limit for a call.

        Parameters
        ----------
        timeout_s : float or None
            Seconds; None for no limit.
        """
        return OnnxModel(
            self._contract,
            self._session,
            self._empty,
            self._notes,
            timeout_s=timeout_s,
            padding_is_neutral=self._padding_is_neutral,
        )

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        """Return the output fields of every row.

        Parameters
        ----------
        columns : mapping of str to Column
            At least the required fields. A column that already has the tensor's type, shape and order is not copied.
            A field of `ANY_WIDTH` has shape (n_rows, length), with any length.
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
        InferenceTimeout
            If it takes longer than `timeout_s`; the model goes on with the next call.
        """
        if not n_rows:
            return dict(self._empty)
        contract = self._contract
        try:
            feed = build_feed(contract.inputs, columns, n_rows)
            results = self._run(self._session, self._tensors, feed, self._timeout_s)
            by_tensor = dict(zip(self._tensors, results, strict=True))
            return {spec.field: read_output(spec, by_tensor[spec.tensor], n_rows) for spec in contract.outputs}
        except CallTimeout as error:
            problem = f"{error}, with a batch of {n_rows}"
            raise InferenceTimeout(contract.name, contract.version, problem) from error.__cause__
        except ContractBreach as error:
            raise InferenceError(contract.name, contract.version, str(error)) from error.__cause__
