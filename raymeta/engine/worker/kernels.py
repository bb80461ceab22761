"""The CPU kernels of a compiled graph, built together: a C++ compiler reads torch's headers once, not for each kernel.

torch builds a library for each kernel, and reading its headers takes several times as long as the kernel itself. A
graph of four convolutions with gradients of gradients has fifty.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

_DEFINED = re.compile(r"\bvoid\s+kernel\(")
_INCLUDE = re.compile(r"^\s*#include.*$", re.MULTILINE)
MOST_PARTS = 8
"""Libraries of a graph that has enough kernels; each is compiled by a core of its own."""
_ONE_THREAD = threading.RLock()
LEAST_CHARACTERS = 50_000
"""Source of a library from which on another one is worth reading the headers again."""


@contextmanager
def built_together() -> Iterator[None]:
    """Within this, torch's compiler gets all CPU kernels of a graph at once, and finds out which instructions the
    processor has while the graph is made. A version that has no place for it does as it always does.

    One thread at a time is within it.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no GPU
    with _ONE_THREAD, _replaced():
        yield


@contextmanager
def _replaced() -> Iterator[None]:
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.graph import GraphLowering

    owner: Any = AsyncCompile
    graphs: Any = GraphLowering
    kernel, wait = getattr(owner, "cpp_pybinding", None), getattr(owner, "wait", None)
    codegen = getattr(graphs, "codegen", None)
    if kernel is None or wait is None or codegen is None:
        yield
        return
    found = instruction_sets()

    def ordered(self: Any, argtypes: list[str], source_code: str) -> Any:
        if len(_DEFINED.findall(source_code)) != 1:
            return kernel(self, argtypes, source_code)
        return self.__dict__.setdefault("together", _Together()).ordered(argtypes, source_code)

    def delivered(self: Any, scope: dict[str, Any]) -> None:
        wait_for([found])  # where all but the kernels came from a cache
        for name, value in list(scope.items()):
            if isinstance(value, _Ordered):
                scope[name] = value.kernel()
        wait(self, scope)

    def written(self: Any) -> Any:
        wait_for([found])
        return codegen(self)

    # Headers that are compiled before pay from five libraries on; processes that wait for kernels of GPUs, never here.
    ours = {"cpp_cache_precompile_headers": False, "compile_threads": 1}
    with config.patch(ours):
        owner.cpp_pybinding, owner.wait, graphs.codegen = ordered, delivered, written
        try:
            yield
        finally:
            owner.cpp_pybinding, owner.wait, graphs.codegen = kernel, wait, codegen


def instruction_sets() -> Future[object]:
    """Finds out beside what is done meanwhile which instructions of the processor torch's compiler may use.

    torch builds and runs small programs for that, which takes seconds for the first graph on a machine, and needs the
    answer only where kernels are written.
    """
    # This imports setuptools, which takes a finder of modules in and out of Python's list. In a thread, it would make
    # an import beside it fail.
    import torch.utils.cpp_extension  # noqa: F401

    def found() -> object:
        from torch._inductor.cpu_vec_isa import pick_vec_isa

        return pick_vec_isa()  # torch keeps it, and asks again itself where this fails

    pool = ThreadPoolExecutor(1)
    future: Future[object] = pool.submit(copy_context().run, found)  # torch's options are those of a context
    pool.shutdown(wait=False)
    return future


class _Source(NamedTuple):
    name: str
    argtypes: Sequence[str]
    code: str


@dataclass
class _Together:
    """The kernels that one graph has ordered."""

    sources: list[_Source] = field(default_factory=list)

    def ordered(self, argtypes: Sequence[str], code: str) -> _Ordered:
        name = f"kernel_{len(self.sources)}"
        self.sources.append(_Source(name, argtypes, code))
        return _Ordered(self, name)

    @cached_property
    def built(self) -> dict[str, Callable[..., None]]:
        """All kernels by name."""
        libraries = _library_class()
        parts = _parts(self.sources, min(MOST_PARTS, os.cpu_count() or 1))
        with ThreadPoolExecutor(len(parts)) as pool:
            loads = [libraries.load_async(_of_one_library(part), submit_fn=pool.submit) for part in parts]
            modules = [load() for load in loads]
        return {
            source.name: getattr(module, source.name)
            for part, module in zip(parts, modules, strict=True)
            for source in part
        }


class _Ordered(NamedTuple):
    together: _Together
    name: str

    def kernel(self) -> Callable[..., None]:
        return self.together.built[self.name]


def _parts(sources: Sequence[_Source], most: int) -> list[list[_Source]]:
    """The sources in parts of about the same length."""
    length = sum(len(source.code) for source in sources)
    parts: list[list[_Source]] = [[] for _ in range(max(1, min(most, len(sources), length // LEAST_CHARACTERS)))]
    for source in sorted(sources, key=lambda source: -len(source.code)):
        min(parts, key=lambda part: sum(len(other.code) for other in part)).append(source)
    return parts


def _of_one_library(sources: Sequence[_Source]) -> str:
    """C++ of a Python module that has all of the kernels."""
    includes = dict.fromkeys(line.strip() for source in sources for line in _INCLUDE.findall(source.code))
    return "\n".join([*includes, _TAKEN, *map(_bound, sources), _module([source.name for source in sources])])


def _bound(source: _Source) -> str:
    """A kernel in a namespace of its own, under its own name, and what calls it from Python."""
    code = _DEFINED.sub(f"void {source.name}(", _INCLUDE.sub("", source.code))
    taken = ", ".join(
        f"taken<{kind.replace('const ', '')}>(args[{place}])" for place, kind in enumerate(source.argtypes)
    )
    return textwrap.dedent("""
        namespace of_{name} {{
        {code}
        }}
        static PyObject* {name}_called(PyObject*, PyObject* const* args, Py_ssize_t number) {{
            try {{
                if (number != {number}) throw std::runtime_error("{name} takes {number} arguments");
                of_{name}::{name}({taken});
                Py_RETURN_NONE;
            }} catch (std::exception const& error) {{
                if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, error.what());
                return nullptr;
            }}
        }}
    """).format(name=source.name, code=code, number=len(source.argtypes), taken=taken)


_TAKEN = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <cstdlib>
#include <stdexcept>
#include <type_traits>
static void* (*data_of)(PyObject*);  // torch's, by its address
template <typename T> static inline T taken(PyObject* value) {
    if constexpr (std::is_pointer_v<T>) {
        return static_cast<T>(data_of(value));
    } else if constexpr (std::is_floating_point_v<T>) {
        const double number = PyFloat_AsDouble(value);
        if (number == -1.0 && PyErr_Occurred()) throw std::runtime_error("a number was expected");
        return static_cast<T>(number);
    } else {
        const Py_ssize_t number = PyLong_AsSsize_t(value);
        if (number == -1 && PyErr_Occurred()) throw std::runtime_error("a whole number was expected");
        return static_cast<T>(number);
    }
}
"""


def _module(names: Sequence[str]) -> str:
    cast = "reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>({}_called))"
    listed = "\n".join(f'    {{"{name}", {cast.format(name)}, METH_FASTCALL, ""}},' for name in names)
    return f"""
static PyMethodDef methods[] = {{
{listed}
    {{nullptr, nullptr, 0, nullptr}}
}};
static struct PyModuleDef described = {{PyModuleDef_HEAD_INIT, "kernels", nullptr, -1, methods}};
PyMODINIT_FUNC PyInit_kernels() {{
    const char* address = std::getenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR");
    if (!address) {{
        PyErr_SetString(PyExc_RuntimeError, "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR is not set");
        return nullptr;
    }}
    data_of = reinterpret_cast<decltype(data_of)>(std::strtoull(address, nullptr, 10));
    return PyModule_Create(&described);
}}
"""


def _library_class() -> Any:
    """torch's cache of C++ libraries, for modules of several kernels: flags, files, locks and loading are torch's."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    return type("Kernels", (CppPythonBindingsCodeCache,), {"cache": {}, "entry_function": "kernels"})
