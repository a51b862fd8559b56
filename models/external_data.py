"""Whether an ONNX file keeps weights in other files: a walk over its protobuf, without the `onnx` package.

A graph that comes from memory still makes ONNX Runtime open such files, relative to the working directory and outside
of any directory that was checked (seen with 1.23 and 1.31, for weights that the optimiser does not fold). So a model
version is one file, the one whose digest was checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelstream.models.contract import ContractBreach

__all__ = ["refuse_external_data"]

#: For each message of onnx.proto, the field numbers that lead towards a tensor.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse_tensor", 23: "sparse_tensor"},
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}

#: TensorProto.external_data and TensorProto.data_location.
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(content: bytes) -> None:
    """Raise if a tensor's data stands outside of the file.

    Parameters
    ----------
    content : bytes
        An ONNX file.

    Raises
    ------
    ContractBreach
        If a tensor refers to another file, or the content is not a protobuf.
    """
    # Every reference carries this key, and most files hold it nowhere: they are spared the walk, which takes
    # over 1 s per million numbers in node attributes.
    if b"location" not in content:
        return
    todo = [("model", 0, len(content))]
    while todo:
        message, start, end = todo.pop()
        children = _CHILDREN[message]
        for number, first, last in _fields(content, start, end):
            if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and content[first])):
                raise ContractBreach("keeps weights in another file; save it as one file without external data")
            if number in children:
                todo.append((children[number], first, last))


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each field of a message."""
    while start < end:
        tag, start = _varint(content, start)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 2:
            length, start = _varint(content, start)
            stop = start + length
        elif wire_type == 0:
            stop = _varint(content, start)[1]
        elif wire_type in (1, 5):
            stop = start + (8 if wire_type == 1 else 4)
        else:  # Groups, which ONNX has none of, and what is no wire type at all.
            raise ContractBreach("not an ONNX file: broken protobuf")
        if stop > end:
            raise ContractBreach("not an ONNX file: broken protobuf")
        yield number, start, stop
        start = stop


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ContractBreach("not an ONNX file: broken protobuf")
