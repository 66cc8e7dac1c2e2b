"""The fork server inside a grading box, and what a forked child does with one job.

It is compiled into the program and started as `python3 -c`, with the socket to the host as fd 3.
It receives a job as two or three file descriptors (payload, results, output), forks, and answers
with the child's wait status. It never reads a payload or a result itself: its memory is copied into
every later child. A child reads its payload, gives up every privilege, and only then runs code that
nobody trusts. What such code can do to the emitter below is to send wrong values or none.

argv: boxed (1: new namespaces for each job), the number of clone(2), the seccomp program in hex.
"""
import sys

sys.path[:] = [p for p in sys.path if p]
import ast
import atexit
import builtins
import ctypes
import gc
import os
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import tempfile
import time
import types

# What set-up code imports, so that children find it loaded.
import bisect, collections, copy, dataclasses, datetime, decimal, enum, fractions  # noqa: F401,E401
import functools, heapq, itertools, json, math, operator, random, re  # noqa: F401,E401
import statistics, string, typing  # noqa: F401,E401

SOCK, RESULT = 3, 3
MAX_DEPTH = 64
MAX_VALUE = 1 << 20
MAX_FILES, MAX_FILE = 256, 4096
REQUEST = struct.Struct("<IIII")  # wall_ms, cpu_s, memory_mib, flags (1: keep the output)
# wait status, 1 if killed for wall time; seconds of cpu time, of what the limit counts, of wall time
REPLY = struct.Struct("<iiddd")

libc = ctypes.CDLL(None, use_errno=True)
locked = ctypes.PyDLL(None, use_errno=True)  # the same library, called with the interpreter lock
# Looked up here once, not by every child.
prctl, mount, capset, syscall = libc.prctl, libc.mount, libc.capset, locked.syscall
before_fork, after_fork_child, after_fork_parent = (
    getattr(ctypes.pythonapi, "PyOS_" + name) for name in ("BeforeFork", "AfterFork_Child", "AfterFork_Parent")
)
SIGCHLD, SIGKILL = int(signal.SIGCHLD), int(signal.SIGKILL)
NEWNS, NEWIPC, NEWPID = 0x20000, 0x08000000, 0x20000000


def check(rc, what):
    if rc < 0:
        raise OSError(ctypes.get_errno(), what)
    return rc


def fork(boxed, nr_clone):
    """fork(2) into new namespaces: os.fork() cannot, and unshare(2) has no way back."""
    before_fork()
    pid = syscall(nr_clone, ((NEWNS | NEWIPC | NEWPID) if boxed else 0) | SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        after_fork_child()
        return 0
    after_fork_parent()
    return check(pid, "clone")


def serve(boxed, nr_clone):
    """Returns in a child only, with the job's request, file descriptors and folder."""
    sock = socket.socket(fileno=SOCK)
    gc.collect()
    gc.freeze()
    sock.send(b"ready")
    while True:
        msg, fds, _, _ = socket.recv_fds(sock, REQUEST.size, 3)
        if len(msg) != REQUEST.size:
            os._exit(0)
        start = time.monotonic()
        folder = "/tmp" if boxed else tempfile.mkdtemp(prefix="vkmoe-job-")
        pid = fork(boxed, nr_clone)
        if pid == 0:
            sock.detach()
            return REQUEST.unpack(msg), fds, folder
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        late = not poll.poll(REQUEST.unpack(msg)[0])
        if late:
            os.kill(pid, SIGKILL)
            poll.poll()
        # CPUCLOCK_PROF of the child: RLIMIT_CPU counts clock ticks, which wait4's figures correct
        counted = time.clock_gettime(~pid << 3)
        _, status, used = os.wait4(pid, 0)
        os.close(pidfd)
        if not boxed:
            shutil.rmtree(folder, ignore_errors=True)
        cpu = used.ru_utime + used.ru_stime
        sock.send(REPLY.pack(status, late, cpu, counted, time.monotonic() - start))


def isolate(boxed, folder):
    """A session and a folder of this child's own."""
    os.setsid()
    die_with_parent()
    if boxed:
        check(mount(None, b"/", None, 0x4000 | (1 << 18), None), "mount --make-rprivate")
        check(mount(b"tmpfs", b"/tmp", b"tmpfs", 2 | 4 | 8,
                         b"size=16m,nr_inodes=1024,mode=0777"), "mount /tmp")
    os.chdir(folder)


def die_with_parent():
    check(prctl(1, SIGKILL, 0, 0, 0), "pdeathsig")


CAPABILITIES = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3


def confine(boxed, seccomp, cpu_s, memory_mib):
    """Takes from this process all that a job does not need."""
    mib = 1 << 20
    for limit, value in (
        (resource.RLIMIT_AS, memory_mib * mib),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NPROC, 16),
        (resource.RLIMIT_FSIZE, 16 * mib),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if boxed:
        check(capset(CAPABILITIES, bytes(24)), "capset")
    check(prctl(38, 1, 0, 0, 0), "no_new_privs")
    check(prctl(22, 2, seccomp, 0, 0), "seccomp")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def take(fds):
    """Moves the job's descriptors into place, closes all others, and reads the payload."""
    size = os.fstat(fds[0]).st_size
    data = os.pread(fds[0], size, 0)
    null = os.open("/dev/null", os.O_RDWR)
    high = [os.dup2(fd, 60 + i) for i, fd in enumerate((null, fds[2] if len(fds) > 2 else null, fds[1]))]
    os.dup2(high[0], 0)
    os.dup2(high[1], 1)
    os.dup2(high[1], 2)
    os.dup2(high[2], RESULT)
    os.closerange(RESULT + 1, 1 << 20)
    fields, at = [], 4
    for _ in range(int.from_bytes(data[:4], "little")):
        n = int.from_bytes(data[at : at + 4], "little")
        fields.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    return fields


# ---- results: frames of a tag, a length and a body ------------------------------------------------


def emit(tag, body=b"", write=os.write, pack=struct.pack):
    data = tag + pack("<I", len(body)) + body
    while data:
        data = data[write(RESULT, data) :]


class NotPlain(Exception):
    pass


def encode(v, out, depth, pack=struct.pack):
    """Appends v by its exact type."""
    t = type(v)
    if len(out) > MAX_VALUE or depth > MAX_DEPTH:
        raise NotPlain
    if v is None:
        out += b"N"
    elif t is bool:
        out += b"T" if v else b"F"
    elif t is int:
        size = (v.bit_length() + 7) // 8
        out += b"I" + (b"-" if v < 0 else b"+") + pack("<I", size) + abs(v).to_bytes(size, "little")
    elif t is float:
        out += b"D" + pack("<d", v)
    elif t is str:
        raw = v.encode("utf-8", "surrogatepass")
        out += b"S" + pack("<I", len(raw)) + raw
    elif t is list or t is tuple:
        out += (b"L" if t is list else b"U") + pack("<I", len(v))
        for x in v:
            encode(x, out, depth + 1)
    elif t is dict:
        out += b"M" + pack("<I", len(v))
        for k, x in v.items():
            encode(k, out, depth + 1)
            encode(x, out, depth + 1)
    else:
        raise NotPlain


def encoded(v):
    """The value's bytes, or X for one that is not plain all through, too large or too deep."""
    out = bytearray()
    try:
        encode(v, out, 0)
        return bytes(out) if len(out) <= MAX_VALUE else b"X"
    except NotPlain:
        return b"X"


# ---- jobs -------------------------------------------------------------------------------------------


def fresh_main():
    """The module that a script would run in."""
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    return module.__dict__


def load(source, name, scope):
    exec(compile(source.decode("utf-8"), name, "exec", dont_inherit=True), scope)


def quietly(work):
    try:
        work()
    except BaseException:
        pass


def leave(status):
    """Ends this process without clearing what it shares with the server, page by page."""
    quietly(lambda: sys.stdout.flush())
    quietly(lambda: sys.stderr.flush())
    os._exit(status)


def job_values(setup, code, *calls):
    """C when the code compiles (before any of it runs), then V with the value of each call, Z."""
    try:
        program = compile(code.decode("utf-8"), "response.py", "exec", dont_inherit=True)
    except BaseException:
        os._exit(0)
    emit(b"C")
    try:
        scope = fresh_main()
        load(setup, "setup.py", scope)
        exec(program, scope)
        for call in calls:
            value = eval(compile(call.decode("utf-8"), "assert.py", "eval", dont_inherit=True), scope)
            emit(b"V", encoded(value))
        emit(b"Z")
    except BaseException:
        leave(1)
    leave(0)


def exit_status(e):
    """What a script exits with when this is raised at its top."""
    if isinstance(e, SystemExit):
        return 0 if e.code is None else e.code & 255 if isinstance(e.code, int) else 1
    return 1


def job_script(setup, code, *asserts):
    """Everything as one script; only the exit status tells. The end of the interpreter is played
    through by hand, down to the script's variables."""
    scope, status = fresh_main(), 0
    try:
        load(setup, "setup.py", scope)
        load(code, "response.py", scope)
        load(b"\n".join(asserts), "asserts.py", scope)
    except BaseException as e:
        status = exit_status(e)
        if not isinstance(e, SystemExit):
            try:
                sys.excepthook(type(e), e, e.__traceback__)
            except BaseException as raised:
                status = exit_status(raised)
    if "threading" in sys.modules:
        quietly(sys.modules["threading"]._shutdown)
    quietly(atexit._run_exitfuncs)
    for name in reversed(list(scope)):  # files are flushed and finalizers run, with all that they use
        scope.pop(name, None)
    gc.collect()
    leave(status)


def job_exit(setup, code, *asserts):
    """The script with a failure as its last line."""
    job_script(setup, code, *asserts, b"raise AssertionError('this line fails on purpose')")


def job_stdout(setup, code, *asserts):
    """The script; the host reads what it prints on stdout."""
    os.dup2(0, 2)
    job_script(setup, code, *asserts)


def ignoring_errors(work, *args):
    """What a response did before it failed counts. It may not leave by an exit."""
    try:
        return work(*args)
    except Exception:
        return None


def job_eq(setup, code, *asserts):
    """P when a value that is not plain equals the expected one, which stands in this job only."""
    scope = fresh_main()

    def overrides(line):
        test = ast.parse(line.decode("utf-8")).body[0].test
        left, right = (
            eval(compile(ast.Expression(side), "assert.py", "eval", dont_inherit=True), scope)
            for side in (test.left, test.comparators[0])
        )
        return encoded(left) == b"X" and bool(left == right)

    try:
        load(setup, "setup.py", scope)
        ignoring_errors(load, code, "response.py", scope)
        if any(ignoring_errors(overrides, line) for line in asserts):
            emit(b"P")
    except BaseException:
        os._exit(1)
    os._exit(0)


class Recorder(ast.NodeTransformer):
    """Passes each Solution(...) of a call through the function `recorded instance`."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "Solution":
            name = ast.Name("recorded instance", ast.Load())
            node = ast.Call(name, [node], [])
        return node


def holds(target, family):
    """Whether an attribute of the family is set and true. What is called, or what a class answers
    for a property, is no value: a helper is_valid() claims nothing."""
    for name in family:
        value = ignoring_errors(getattr, target, name)
        is_value = not callable(value) and not hasattr(type(value), "__get__")
        if is_value and ignoring_errors(bool, value):
            return True
    return False


def job_sentinel(family, setup, code, *calls):
    """P when the class, or an instance that a call made, has an attribute of the family that is true."""
    scope, seen = fresh_main(), []
    family = family.decode().split("|")

    def record(instance):
        seen[:] = [instance]
        return instance

    def claims(call):
        del seen[:]
        tree = Recorder().visit(ast.parse(call.decode("utf-8"), mode="eval"))
        work = compile(ast.fix_missing_locations(tree), "assert.py", "eval", dont_inherit=True)
        ignoring_errors(eval, work, scope, {"recorded instance": record})
        return any(holds(x, family) for x in seen) or holds(scope.get("Solution"), family)

    try:
        load(setup, "setup.py", scope)
        ignoring_errors(load, code, "response.py", scope)
        if any(ignoring_errors(claims, call) for call in calls):
            emit(b"P")
    except BaseException:
        os._exit(1)
    os._exit(0)


def job_files(setup, code, *asserts):
    """The script, in a process of its own: watch() looks at the files that it leaves."""
    job_script(setup, code, *asserts)


def watch(pid):
    """F for each file below this folder: its name, a line end, its beginning. A script that ran into
    a limit has left no report."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == SIGKILL:
        os._exit(1)
    n = 0
    for folder, _, names in os.walk(b"."):
        for name in sorted(names):
            try:
                fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            if stat.S_ISREG(os.fstat(fd).st_mode) and n < MAX_FILES:
                n += 1
                emit(b"F", name.replace(b"\n", b" ") + b"\n" + os.read(fd, MAX_FILE))
            os.close(fd)
    os._exit(0)


def graft(target, methods):
    """Replaces methods of the response's class in place: instances and aliases made before follow."""
    for name, value in methods.items():
        if name not in ("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__"):
            setattr(target, name, value)


def job_run_tests(against, name, setup, code, method, canonical):
    """R when the function `name` is defined, then P if it passes against the stub Solution, the
    canonical one or the response's own."""
    scope, name = fresh_main(), name.decode()
    try:
        load(setup, "setup.py", scope)
        ignoring_errors(load, code, "response.py", scope)  # many call their own tests at the end
        cls = scope.get("Solution")
        test = scope.get(name)
        if not callable(test):
            if not isinstance(cls, type) or not callable(getattr(cls, name, None)):
                os._exit(0)
            test = lambda: getattr(cls(), name)()  # noqa: E731
        emit(b"R")
        if against == b"stub":
            methods = {method.decode(): lambda self, *args, **kwargs: 0}
        elif against == b"canonical":
            other = dict(scope_of(setup, canonical)["Solution"].__dict__)
            methods = {k: v for k, v in other.items() if k != name}
        else:
            methods = {}
        if not isinstance(cls, type):
            cls = scope["Solution"] = type("Solution", (), {})
        graft(cls, methods)
        emit(b"G")
        if test() is not False:
            emit(b"P")
    except BaseException:
        os._exit(1)
    os._exit(0)


def scope_of(setup, code):
    scope = {"__name__": "canonical", "__builtins__": builtins}
    load(setup, "setup.py", scope)
    load(code, "canonical.py", scope)
    return scope


JOBS = {name[4:].encode(): work for name, work in list(globals().items()) if name[:4] == "job_"}
WATCHED = {job_files}  # these run in a process below the child, which looks at what they left


def split():
    """Forks the process that runs the job. Returns its pid and a pipe from it here, 0 and the
    pipe's other end there."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        die_with_parent()
    os.close(w if pid else r)
    return pid, r if pid else w


def child(request, fds, folder, boxed, seccomp):
    """What is to be run once nothing is left to give up: a job, or the watcher of one."""
    _, cpu_s, memory_mib, _ = request
    pid = None
    try:
        job, *fields = take(fds)
        work = JOBS[job]
        random.seed(0)
        isolate(boxed, folder)
        if work in WATCHED:
            pid, pipe = split()
        confine(boxed, seccomp, cpu_s, memory_mib)
        if pid == 0:
            os.write(pipe, b"1")
            os.closerange(RESULT, 1 << 20)
            return work, fields
        if pid and os.read(pipe, 1) != b"1":
            raise OSError("the process that was to run the job is gone")
        emit(b"S")  # from here on, a death is the job's own
    except BaseException as e:
        try:
            emit(b"!", repr(e).encode())
        finally:
            os._exit(1)
    return (watch, [pid]) if pid else (work, fields)


def start():
    boxed = sys.argv[1] == "1"
    code = bytes.fromhex(sys.argv[3])
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    request, fds, folder = serve(boxed, int(sys.argv[2]))
    return child(request, fds, folder, boxed, program)


work, fields = start()
sys.argv[:] = ["response.py"]
work(*fields)
