"""Operators: event batch in, event batch out. Decoding, the stages of a pipeline, and encoding.

They know nothing of Faust, Kafka or topics; `modelstream.streams` runs them, and so can a test or a notebook.
"""

from modelstream.operators.batch import Column, EventBatch, Fault, Lineage, ModelOutput, RowStatus, Settled
from modelstream.operators.codecs import Codec
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.extract import Extract
from modelstream.operators.f32_format import VectorFormat
from modelstream.operators.fields import MISSING, ColumnSpec, read_columns
from modelstream.operators.filter import Filter
from modelstream.operators.infer import Infer, ScoringModel
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.msgpack_format import MsgpackFormat
from modelstream.operators.operator import Operator, run_isolated

__all__ = [
    "MISSING",
    "Codec",
    "Column",
    "ColumnSpec",
    "EventBatch",
    "Extract",
    "Fault",
    "Filter",
    "Infer",
    "JsonFormat",
    "Lineage",
    "ModelOutput",
    "MsgpackFormat",
    "Operator",
    "PredictionEncoder",
    "RowStatus",
    "ScoringModel",
    "Settled",
    "VectorFormat",
    "read_columns",
    "run_isolated",
]
