/* Forgeries: programs whose answers are wrong and that try to have them taken for right. None is,
 * in any job; and the other way round, Python's own equalities hold. */
#include "env_fixture.h"

static int set_up(void **state) {
    vkm_grade_config c = short_limits();
    return env_open(state, &c);
}

#define LIAR                                                                                       \
    "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
/* For each frame of the stack, innermost first. */
#define FRAMES(body)                                                                               \
    "import sys\nclass Solution:\n    def f(self, n):\n        f = sys._getframe()\n"              \
    "        while f:\n            " body "\n            f = f.f_back\n        return n\n"

static const struct {
    const char *what, *code;
} forgeries[] = {
    {"equal to everything", LIAR AT_CALL("return Any(n)")},
    {"equal to everything, a list", LIAR AT_CALL("return [Any(n)]")},
    {"a str subclass", "class S(str): pass\n" AT_CALL("return S('4')")},
    {"a bool subclass by metaclass",
     "class M(type):\n    def __eq__(s, o): return True\n    def __hash__(s): return hash(int)\n"
     "class X(metaclass=M):\n    def __eq__(s, o): return True\n" AT_CALL("return X()")},
    {"patched builtins",
     "import builtins\nbuiltins.type = lambda v: int\nbuiltins.int = object\n" WRONG},
    {"an assert that is patched away",
     "import sys\nsys.modules['__main__'].__dict__['AssertionError'] = None\n" WRONG},
    {"frames of the emitter",
     "import sys\nclass Solution:\n    def f(self, n):\n        f = sys._getframe()\n"
     "        while f:\n            for k in list(f.f_locals):\n"
     "                if k in ('calls', 'fields'): f.f_locals[k] = ()\n            f = f.f_back\n"
     "        return n\n"},
    {"search for expected values in memory",
     "import gc\nneedle = b'== %d' % 12345678901 ** 2\n"
     "found = [x for o in gc.get_objects() if type(o) in (list, tuple) for x in o "
     "if type(x) is bytes and needle in x]\n" AT_CALL("return n * n if found else n")},
    {"frames forged on the pipe",
     "import os\nfor i in range(3): os.write(3, b'V' + bytes([6,0,0,0]) + b'I+\\0\\0\\0\\0')\n"
     "os.write(3, b'Z\\0\\0\\0\\0')\nos._exit(0)\n"},
    {"a float subclass",
     "class F(float):\n    def __eq__(s, o): return True\n" AT_CALL("return F(n)")},
    {"a list subclass",
     "class L(list):\n    def __eq__(s, o): return True\n" AT_CALL("return L()")},
    {"a class that says it is int", "class X:\n    __class__ = int\n    def __eq__(s, o): return "
                                    "True\n    def __index__(s): return 4\n"
                                    "    def bit_length(s): return 3\n" AT_CALL("return X()")},
    {"the emitter replaced",
     "import sys, gc\n"
     "for f in [o for o in gc.get_objects() if type(o).__name__ == 'function']:\n"
     "    if f.__name__ in ('encode', 'encoded', 'emit'): f.__code__ = (lambda *a, **k: "
     "b'').__code__\n" WRONG},
    {"the emitter's module through a frame",
     FRAMES("g = f.f_globals\n            if 'encoded' in g: g['encoded'] = lambda v: "
            "b'I+\\1\\0\\0\\0\\4'")},
    {"the pipe written by a thread", "import os, threading\ndef flood():\n    for i in "
                                     "range(1000): os.write(3, b'V\\7\\0\\0\\0I+\\1\\0\\0\\0\\4')\n"
                                     "threading.Thread(target=flood, daemon=True).start()\n" WRONG},
    {"the pipe closed and another one in its place",
     "import os\nr, w = os.pipe()\nos.dup2(w, 3)\n" WRONG},
    {"all frames sent, then an exit",
     "import os\nfor v in (4, 9): os.write(3, b'V\\7\\0\\0\\0I+\\1\\0\\0\\0' + bytes([v]))\n"
     "os.write(3, b'Z\\0\\0\\0\\0')\nos._exit(0)\n"},
    {"more values than asserts", "import os\nfor v in range(100): os.write(3, "
                                 "b'V\\7\\0\\0\\0I+\\1\\0\\0\\0' + bytes([v]))\n" WRONG},
    {"frames of a length that is a lie",
     "import os\nos.write(3, b'V\\xff\\xff\\xff\\xff')\n" WRONG},
    {"an end before the values", "import os\nos.write(3, b'Z\\0\\0\\0\\0')\n" WRONG},
    {"eval replaced", "import builtins\nbuiltins.eval = lambda *a: 4\nbuiltins.compile = lambda "
                      "*a, **k: None\n" WRONG},
    {"a trace function that rewrites locals",
     "import ctypes, sys\ndef trace(frame, event, arg):\n    if 'value' in frame.f_locals:\n"
     "        frame.f_locals['value'] = 4\n        ctypes.pythonapi.PyFrame_LocalsToFast("
     "ctypes.py_object(frame), ctypes.c_int(0))\n    return trace\n"
     "f = sys._getframe()\nwhile f: f.f_trace, f = trace, f.f_back\nsys.settrace(trace)\n" WRONG},
    {"arguments of the calls read in frames",
     FRAMES(
         "for v in f.f_locals.values():\n                if isinstance(v, (tuple, list)) and "
         "any(b'== %d' % 12345678901 ** 2 in x for x in v if isinstance(x, bytes)): return n * n")},
    {"the host's command line and files",
     "import os, sys\nseen = repr(sys.argv) + repr(dict(os.environ))\n"
     "for fd in range(64):\n    try: seen += repr(os.pread(fd, 1 << 20, 0))\n    except OSError: "
     "pass\n" AT_CALL("return n * n if '== %d' % 12345678901 ** 2 in seen else n")},
    {"a value whose size is the answer", AT_CALL("return [n] * 2")},
    {"nan equals itself by identity", "x = float('nan')\n" AT_CALL("return x")},
    {"the digits as text", AT_CALL("return str(n * n)")},
    {"a set", AT_CALL("return {n * n}")},
    {"complex", AT_CALL("return complex(n * n)")},
    {"Decimal", "import decimal\n" AT_CALL("return decimal.Decimal(n * n)")},
    {"a coroutine", HEAD "    async def f(self, n): return n * n\n"},
    {"small integers rewritten in memory",
     "import ctypes\nfor i in range(-5, 257):\n    ctypes.c_int32.from_address(id(i) + 24).value = "
     "4\n" WRONG},
};

static void wrong_answers_stay_wrong(void **state) {
    env_scene *e = env_of(state);
    uint64_t t;
    vkm_grade g;
    assert_true(VKM_COUNTOF(forgeries) >= 15);
    for (size_t i = 0; i < VKM_COUNTOF(forgeries); i++)
        for (int m = 0; m < vkm_n_modes; m++) submit_code(e, &vkm_modes[m], forgeries[i].code);
    for (size_t i = 0; i < VKM_COUNTOF(forgeries); i++)
        for (int m = 0; m < vkm_n_modes; m++) {
            assert_true(vkm_grader_next(e->grader, true, &t, &g));
            if (g.infra_error)
                fail_msg("%s: infrastructure error: %s", forgeries[i].what, g.reason);
            if (!g.evidence.can_compile) fail_msg("%s: does not compile", forgeries[i].what);
            if (g.evidence.gt_correct)
                fail_msg("%s is taken for correct in %s", forgeries[i].what, vkm_modes[m].name);
            if (g.passed && !g.exploited)
                fail_msg("%s: passed and not exploited", forgeries[i].what);
        }
    assert_true(grade_code(e->grader, e->problems->items, vkm_mode_gt_only(), RIGHT "# after\n")
                    .evidence.gt_correct);
}

/* Answers that Python's == takes for the expected ones are right: the strict grade is no stricter.
 */
static void what_python_calls_equal_is_right(void **state) {
    static const char *const codes[] = {
        AT_CALL("return n * n if n < 0 else float(n * n)"),
        "import sys\nsys.setrecursionlimit(50)\n" RIGHT,
        "import builtins\nprint = input = open = None\n" RIGHT,
        "def Solution_(): pass\n" RIGHT "raise_later = 1\n",
        HEAD
        "    cache = {}\n    def f(self, n):\n        return self.cache.setdefault(n, n * n)\n",
        "import os\nos.chdir('/')\nos.close(1)\n" RIGHT,
        "class Base:\n    def f(self, n): return n * n\nclass Solution(Base): pass\n",
        "import sys\nsys.stdout = sys.stderr = None\n" RIGHT,
    };
    env_scene *e = env_of(state);
    for (size_t i = 0; i < VKM_COUNTOF(codes); i++) {
        vkm_grade g = grade_code(e->grader, e->problems->items, vkm_mode_gt_only(), codes[i]);
        if (!g.evidence.gt_correct) fail_msg("a right answer is wrong: %s", codes[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_answers_stay_wrong),
        cmocka_unit_test(what_python_calls_equal_is_right),
    };
    return cmocka_run_group_tests(tests, set_up, env_close);
}
