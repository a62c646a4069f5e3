"""Worker processes that simulate, and the same without processes."""

import contextlib
import importlib.machinery
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Mapping
from typing import IO, Any

from jaxmeta.envs import _host_simulators
from jaxmeta.envs._host_simulators import Blueprint, Simulators

# A worker gets its program from the pipe. So it does not run the user's main module again, as multiprocessing would,
# and scripts need no `if __name__ == "__main__"`.
_BOOT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); import pickle; pickle.load(sys.stdin.buffer)()"
)
_ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Workers:
    """Simulators in worker processes, or in this process if there is only one.

    The processes start with the first request. They end with `close`, with the last reference to this object, or when
    this process ends in any way.

    Args:
        name: name of the environment, for errors.
        blueprint: everything about the environment.
        processes: number of processes.
    """

    def __init__(self, name: str, blueprint: Blueprint, processes: int) -> None:
        self.processes = processes
        self._name = name
        self._blueprint = blueprint
        self._lock = threading.Lock()  # XLA may call from several threads
        self._started = 0
        self._workers: list[Any] = []
        weakref.finalize(self, _close, self._workers)

    def ask(self, requests: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Sends a request `(method, *arguments)` to each of some workers, and returns the answers.

        Raises:
            RuntimeError: if a worker has raised an exception or has died.
        """
        if not requests:
            return {}
        with self._lock:
            try:
                if not self._workers:
                    self._start()
                return self._exchange({self._workers[index]: (index, request) for index, request in requests.items()})
            except _WorkerError as failed:
                raise RuntimeError(f"{self._name}: {failed}") from failed.__cause__
            except BaseException:  # such as Ctrl-C between a request and its answer
                _close(self._workers)
                raise

    def close(self) -> None:
        """Ends the processes. The next request starts new ones."""
        with self._lock:
            _close(self._workers)

    def _start(self) -> None:
        kind = _Here if self.processes == 1 else _Process
        self._workers.extend(kind() for _ in range(self.processes))
        # An episode of simulators that are closed must not be taken for one of those that come after them.
        first = (self._started << 24) % 2**31
        self._started += 1
        start = (
            ("start", sys.path, _by_value(self._blueprint), first) if self.processes > 1 else (self._blueprint, first)
        )
        try:
            self._exchange({worker: (index, start) for index, worker in enumerate(self._workers)})
        except _WorkerError:
            _close(self._workers)
            raise

    def _exchange(self, requests: Mapping[Any, tuple[int, tuple[Any, ...]]]) -> dict[int, Any]:
        for worker, (_, request) in requests.items():
            worker.send(request)
        # All answers are read before an error is raised, so that none of them is taken for that to the next request.
        answers, errors = {}, []
        for worker, (index, _) in requests.items():
            try:
                answers[index] = worker.receive()
            except _WorkerError as failed:
                errors.append(failed)
        if errors:
            if any(failed.fatal for failed in errors):
                _close(self._workers)
            raise errors[0]
        return answers


class _WorkerError(Exception):
    """Failure of a worker, which is `fatal` if the worker is gone."""

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


class _Here:
    """Worker in this process."""

    def __init__(self) -> None:
        self._simulators: Any = None
        self._request: tuple[Any, ...] = ()

    def send(self, request: tuple[Any, ...]) -> None:
        """Keeps a request."""
        self._request = request

    def receive(self) -> Any:
        """Returns the answer to it."""
        try:
            if self._simulators is None:
                self._simulators = Simulators(*self._request)
                return None
            name, *args = self._request
            return getattr(self._simulators, name)(*args)
        except Exception as error:
            raise _WorkerError(f"{type(error).__name__}: {error}") from error

    def hang_up(self) -> None:
        """Closes the simulators."""
        if self._simulators is not None:
            self._simulators.close()

    def wait(self) -> None:
        """Does nothing."""


class _Process:
    """Worker process."""

    def __init__(self) -> None:
        # A simulator that uses JAX must leave the accelerator alone.
        environment = _ALONE | dict(os.environ) | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", _BOOT]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        with contextlib.suppress(OSError):  # `receive` reports a worker that is gone
            self._requests.write(_pickled(_serve, [sys.modules[__name__], _host_simulators]))

    def send(self, request: tuple[Any, ...]) -> None:
        """Sends a request."""
        with contextlib.suppress(OSError):
            _send(self._requests, request)

    def receive(self) -> Any:
        """Waits for the answer."""
        try:
            fine, answer = pickle.loads(_receive(self._answers))
        except (EOFError, OSError):
            raise _WorkerError(f"a worker process has died ({self._ending()})", fatal=True) from None
        if fine:
            return answer
        raise _WorkerError(f"{answer[0]}\n\nIn a worker process:\n{answer[1]}")

    def hang_up(self) -> None:
        """Tells the process to end."""
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()

    def wait(self) -> None:
        """Waits for the end of the process, and does not wait long."""
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ending(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it has closed its pipe"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _close(workers: list[Any]) -> None:
    ending = workers.copy()
    workers.clear()
    for worker in ending:
        worker.hang_up()
    for worker in ending:
        worker.wait()


def _by_value(blueprint: Blueprint) -> bytes:
    """Pickles a blueprint so that a worker need not import the modules that only this process can find.

    Such are a module that was loaded from a file, and the main module.
    """
    functions = [getattr(part, "func", part) for part in (blueprint.make, blueprint.sample_tasks, blueprint.set_task)]
    names = {getattr(function, "__module__", None) for function in functions} & set(sys.modules)
    find = importlib.machinery.PathFinder.find_spec
    hidden = [sys.modules[name] for name in names if name and not find(name.split(".")[0])]
    return _pickled(tuple(blueprint), hidden)


def _pickled(value: Any, modules: list[Any]) -> bytes:
    """Pickles a value, with what comes from some modules by value."""
    import cloudpickle

    added = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(value)
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _send(file: IO[bytes], value: Any) -> None:
    """Writes a message to a pipe."""
    import cloudpickle

    message = cloudpickle.dumps(value)
    file.write(struct.pack("<Q", len(message)))
    file.write(message)
    file.flush()


def _receive(file: IO[bytes]) -> bytes:
    """Reads a message, and raises EOFError if the other side has closed the pipe."""
    head = file.read(8)
    message = file.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else b""
    if not message:
        raise EOFError
    return message


def _serve() -> None:
    """Answers requests in a worker process, until the main process closes the pipe."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what simulators print must not get between the answers
    simulators: Any = None
    while True:
        try:
            message = _receive(requests)
        except EOFError:
            break
        try:
            name, *args = pickle.loads(message)
            if name == "start":
                sys.path[:] = args[0]
                simulators = Simulators(Blueprint(*pickle.loads(args[1])), args[2])
                answer = True, None
            else:
                answer = True, getattr(simulators, name)(*args)
        except Exception as error:
            answer = False, (f"{type(error).__name__}: {error}", traceback.format_exc())
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            _send(answers, answer)
    if simulators is not None:
        simulators.close()
