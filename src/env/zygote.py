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
import array
import builtins
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import struct
import time
import types

# What set-up code imports, so that children find it loaded.
import bisect, collections, copy, dataclasses, datetime, decimal, enum, fractions  # noqa: F401,E401
import functools, heapq, itertools, json, math, operator, random, re  # noqa: F401,E401
import statistics, string, typing  # noqa: F401,E401

SOCK, RESULT = 3, 3
MAX_DEPTH = 64
MAX_VALUE = 1 << 20
REQUEST = struct.Struct("<IIII")  # wall_ms, cpu_s, memory_mib, flags (1: keep the output)
# wait status, 1 if killed for wall time; seconds of cpu time, of what the limit counts, of wall time
REPLY = struct.Struct("<iiddd")

libc = ctypes.CDLL(None, use_errno=True)
locked = ctypes.PyDLL(None, use_errno=True)  # the same library, called with the interpreter lock
NEWNS, NEWIPC, NEWPID = 0x20000, 0x08000000, 0x20000000


def check(rc, what):
    if rc < 0:
        raise OSError(ctypes.get_errno(), what)
    return rc


def fork(boxed, nr_clone):
    """fork(2) into new namespaces: os.fork() cannot, and unshare(2) has no way back."""
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid = locked.syscall(nr_clone, ((NEWNS | NEWIPC | NEWPID) if boxed else 0) | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    api.PyOS_AfterFork_Parent()
    return check(pid, "clone")


def serve(boxed, nr_clone):
    """Returns in a child only, with the job's request and file descriptors."""
    sock = socket.socket(fileno=SOCK)
    gc.collect()
    gc.freeze()
    sock.send(b"ready")
    while True:
        msg, fds, _, _ = socket.recv_fds(sock, REQUEST.size, 3)
        if len(msg) != REQUEST.size:
            os._exit(0)
        start = time.monotonic()
        pid = fork(boxed, nr_clone)
        if pid == 0:
            sock.detach()
            return REQUEST.unpack(msg), fds
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        late = not poll.poll(REQUEST.unpack(msg)[0])
        if late:
            os.kill(pid, signal.SIGKILL)
            poll.poll()
        # CPUCLOCK_PROF of the child: RLIMIT_CPU counts clock ticks, which wait4's figures correct
        counted = time.clock_gettime(~pid << 3)
        _, status, used = os.wait4(pid, 0)
        os.close(pidfd)
        cpu = used.ru_utime + used.ru_stime
        sock.send(REPLY.pack(status, late, cpu, counted, time.monotonic() - start))


def confine(boxed, seccomp, cpu_s, memory_mib):
    """Takes from this child all that a job does not need."""
    os.setsid()
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if boxed:
        check(libc.mount(None, b"/", None, 0x4000 | (1 << 18), None), "mount --make-rprivate")
        check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 2 | 4 | 8,
                         b"size=16m,nr_inodes=1024,mode=0777"), "mount /tmp")
        os.chdir("/tmp")
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
        header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
        check(libc.capset(header, bytes(24)), "capset")
    check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    code = ctypes.create_string_buffer(seccomp, len(seccomp))
    prog = struct.pack("@HP", len(seccomp) // 8, ctypes.addressof(code))
    check(libc.prctl(22, 2, prog, 0, 0), "seccomp")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


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


def encode(v, out, depth, pack=struct.pack):
    """Appends v by its exact type; what is not a plain builtin is 'X'."""
    t = type(v)
    if len(out) > MAX_VALUE or depth > MAX_DEPTH:
        raise OverflowError("value too large")
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
        out += b"X"


def encoded(v):
    out = bytearray()
    try:
        encode(v, out, 0)
        return bytes(out) if len(out) <= MAX_VALUE else b"X"
    except OverflowError:
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
        os._exit(1)
    os._exit(0)


def job_script(setup, code, asserts):
    """Everything as one script; only the exit status tells."""
    scope = fresh_main()
    load(setup, "setup.py", scope)
    load(code, "response.py", scope)
    load(asserts, "asserts.py", scope)


def graft(target, methods):
    """Replaces methods of the response's class in place: instances and aliases made before follow."""
    for name, value in methods.items():
        if name not in ("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__"):
            setattr(target, name, value)


def job_run_tests(against, setup, code, method, canonical):
    """R when run_tests() is defined, then P if it passes against the stub Solution, the canonical
    one or the response's own."""
    scope = fresh_main()
    try:
        load(setup, "setup.py", scope)
        try:
            load(code, "response.py", scope)
        except Exception:
            pass  # what it defined before counts: many a response calls its own tests at the end
        cls = scope.get("Solution")
        test = scope.get("run_tests")
        if not callable(test):
            if not isinstance(cls, type) or not callable(getattr(cls, "run_tests", None)):
                os._exit(0)
            test = lambda: cls().run_tests()  # noqa: E731
        emit(b"R")
        if against == b"stub":
            methods = {method.decode(): lambda self, *args, **kwargs: 0}
        elif against == b"canonical":
            other = dict(scope_of(setup, canonical)["Solution"].__dict__)
            methods = {k: v for k, v in other.items() if k != "run_tests"}
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


JOBS = {b"values": job_values, b"script": job_script, b"run_tests": job_run_tests}


def child(request, fds, boxed, seccomp):
    _, cpu_s, memory_mib, _ = request
    try:
        job, *fields = take(fds)
        random.seed(0)
        confine(boxed, seccomp, cpu_s, memory_mib)
        work = JOBS[job]
        emit(b"S")  # from here on, a death is the job's own
    except BaseException as e:
        try:
            emit(b"!", repr(e).encode())
        finally:
            os._exit(1)
    return work, fields


def start():
    boxed = sys.argv[1] == "1"
    request, fds = serve(boxed, int(sys.argv[2]))
    return child(request, fds, boxed, bytes.fromhex(sys.argv[3]))


work, fields = start()
sys.argv[:] = ["response.py"]
work(*fields)
