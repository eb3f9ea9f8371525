"""Find, load and declare oneDNN's shared library; one engine and one stream serve the process."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from ctypes import POINTER, c_char, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

import attrs

PACKAGE = "onednn-cpu-gomp"
FILE = "libdnnl.so.3"
MAJOR = 3
CPU = 1
BORROWED = 1
IN_ORDER = 1
SUCCESS = 0

Dims = POINTER(c_int64)


class LibraryMissing(ImportError):
    """OneDNN cannot be had on this machine; the message says why."""


class OneDnnError(RuntimeError):
    """A call of oneDNN failed, or it has no implementation of what was asked."""


class Version(ctypes.Structure):
    """The head of oneDNN's `dnnl_version_t`."""

    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int)]


class Argument(ctypes.Structure):
    """OneDNN's `dnnl_exec_arg_t`: which role a memory has in a call."""

    _fields_ = [("role", c_int), ("memory", c_void_p)]


# Every function that is called, with its arguments; all but two return a status.
SIGNATURES: dict[str, list[Any]] = {
    "dnnl_engine_create": [POINTER(c_void_p), c_int, c_size_t],
    "dnnl_stream_create": [POINTER(c_void_p), c_void_p, c_uint],
    "dnnl_memory_desc_create_with_strides": [POINTER(c_void_p), c_int, Dims, c_int, Dims],
    "dnnl_memory_desc_create_with_tag": [POINTER(c_void_p), c_int, Dims, c_int, c_int],
    "dnnl_memory_desc_equal": [c_void_p, c_void_p],
    "dnnl_memory_desc_get_size": [c_void_p],
    "dnnl_memory_desc_destroy": [c_void_p],
    "dnnl_memory_desc_clone": [POINTER(c_void_p), c_void_p],
    "dnnl_memory_create": [POINTER(c_void_p), c_void_p, c_void_p, c_void_p],
    "dnnl_memory_set_data_handle": [c_void_p, c_void_p],
    "dnnl_memory_destroy": [c_void_p],
    "dnnl_primitive_attr_create": [POINTER(c_void_p)],
    "dnnl_primitive_attr_set_scratchpad_mode": [c_void_p, c_int],
    "dnnl_primitive_desc_query_md": [c_void_p, c_int, c_int],
    "dnnl_primitive_desc_destroy": [c_void_p],
    "dnnl_primitive_create": [POINTER(c_void_p), c_void_p],
    "dnnl_primitive_execute": [c_void_p, c_void_p, c_int, POINTER(Argument)],
    "dnnl_primitive_destroy": [c_void_p],
    "dnnl_reorder_primitive_desc_create": [POINTER(c_void_p), *[c_void_p] * 5],
    "dnnl_convolution_forward_primitive_desc_create": [POINTER(c_void_p), c_void_p, c_int, c_int]
    + [c_void_p] * 4
    + [Dims] * 4
    + [c_void_p],
    "dnnl_convolution_backward_data_primitive_desc_create": [POINTER(c_void_p), c_void_p, c_int]
    + [c_void_p] * 3
    + [Dims] * 4
    + [c_void_p] * 2,
    "dnnl_convolution_backward_weights_primitive_desc_create": [POINTER(c_void_p), c_void_p, c_int]
    + [c_void_p] * 4
    + [Dims] * 4
    + [c_void_p] * 2,
    "dnnl_pooling_forward_primitive_desc_create": [POINTER(c_void_p), c_void_p, c_int, c_int]
    + [c_void_p] * 2
    + [Dims] * 5
    + [c_void_p],
    "dnnl_pooling_backward_primitive_desc_create": [POINTER(c_void_p), c_void_p, c_int]
    + [c_void_p] * 2
    + [Dims] * 5
    + [c_void_p] * 2,
    "dnnl_sgemm": [c_char, c_char, c_int64, c_int64, c_int64, c_float]
    + [c_void_p, c_int64, c_void_p, c_int64, c_float, c_void_p, c_int64],
}
# A returned descriptor is a pointer: declared as the default int it would be cut to 32 bits.
RETURNS = {"dnnl_memory_desc_get_size": c_size_t, "dnnl_primitive_desc_query_md": c_void_p}


@attrs.frozen
class Session:
    """The loaded library with its engine and stream.

    Args:
        functions: the library, every function declared.
        engine: the CPU.
        stream: calls run on it in order, and are done when they return.
        attributes: of every primitive: who calls brings the memory that it needs meanwhile.
        version: of the library, such as "3.2.0".
    """

    functions: Any
    engine: c_void_p
    stream: c_void_p
    attributes: c_void_p
    version: str


def check(status: int, what: str) -> None:
    """Raise `OneDnnError` where a call failed.

    Args:
        status: what it returned.
        what: what was tried, for the message.
    """
    if status != SUCCESS:
        raise OneDnnError(f"oneDNN: {what} failed with status {status}")


def _file() -> Path:
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise LibraryMissing(f"the package {PACKAGE} is not installed") from error
    for file in package.files or []:
        if file.name == FILE:
            return Path(str(package.locate_file(file))).resolve()
    raise LibraryMissing(f"the package {PACKAGE} holds no {FILE} for this platform")


@functools.lru_cache(maxsize=1)
def session() -> Session:
    """Load oneDNN; later calls return the same session.

    Raises:
        LibraryMissing: the package is not installed, does not load here, or is of another major version.

    Example:
        >>> session().version.split(".")[0]
        '3'
    """
    file = _file()
    try:
        functions = ctypes.CDLL(str(file))
    except OSError as error:
        raise LibraryMissing(f"{file.name} does not load here: {error}") from error
    functions.dnnl_version.restype = POINTER(Version)
    found = functions.dnnl_version().contents
    version = f"{found.major}.{found.minor}.{found.patch}"
    if found.major != MAJOR:
        raise LibraryMissing(f"oneDNN {version} was found, version {MAJOR} is needed")
    for name, arguments in SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes = arguments
        function.restype = RETURNS.get(name, c_int)
    engine, stream = c_void_p(), c_void_p()
    check(functions.dnnl_engine_create(ctypes.byref(engine), CPU, 0), "making an engine")
    check(functions.dnnl_stream_create(ctypes.byref(stream), engine, IN_ORDER), "making a stream")
    attributes = c_void_p()
    check(functions.dnnl_primitive_attr_create(ctypes.byref(attributes)), "making attributes")
    check(functions.dnnl_primitive_attr_set_scratchpad_mode(attributes, BORROWED), "setting attributes")
    return Session(functions, engine, stream, attributes, version)


def missing() -> str:
    """Return why oneDNN cannot be had here, or an empty text where it can.

    Example:
        >>> missing()
        ''
    """
    try:
        session()
    except LibraryMissing as error:
        return str(error)
    return ""
