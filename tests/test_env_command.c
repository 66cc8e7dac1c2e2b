/* A reward program of the user's own: good, slow, dying and lying ones. What a program does wrong
 * is never a reward: it is asked once more and then the response has no verdict. */
#include "env_fixture.h"

#include "env/reward.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    vkm_problems *problems;
    const vkm_mode *mode;
} env;

static int set_up(void **state) {
    static env e;
    vkm_err err = {0};
    e.problems = load_problems(VKM_SOURCE_DIR "/data/problems.jsonl");
    e.mode = vkm_mode_find("run_tests", &err);
    *state = &e;
    return 0;
}

static int tear_down(void **state) {
    vkm_problems_free(((env *)*state)->problems);
    return 0;
}

static vkm_reward *open_line(const char *line, double timeout_s, vkm_reward_from from) {
    vkm_err err = {0};
    vkm_reward *r;
    vkm_reward_config c = {from, vkm_grade_config_default(), {line, timeout_s}};
    if (!vkm_reward_open(&c, &r, &err)) return r;
    print_message("no rewards here: %s\n", err.msg);
    skip();
    return NULL;
}

/* A program in Python that defines answer(q): what to print for a request. */
static vkm_reward *open_python(const char *body, double timeout_s) {
    static const char frame[] = "import sys, json, os, time\n%s\n"
                                "for line in sys.stdin:\n"
                                "    q = json.loads(line)\n"
                                "    print(answer(q))\n";
    char text[4096], line[VKM_PATH_MAX + 64];
    snprintf(text, sizeof text, frame, body);
    snprintf(line, sizeof line, "exec /usr/bin/python3 -S %s 2>/dev/null",
             scratch_file("reward.py", text));
    return open_line(line, timeout_s, VKM_REWARD_FROM_COMMAND);
}

static void submit(vkm_reward *r, const env *e, const char *text) {
    vkm_err err = {0};
    if (vkm_reward_submit(r, e->problems->items, e->mode, text, strlen(text), &err))
        fail_msg("%s", err.msg);
}

static vkm_grade next(vkm_reward *r) {
    vkm_err err = {0};
    vkm_grade g;
    if (vkm_reward_next(r, &g, &err)) fail_msg("%s", err.msg);
    return g;
}

static void close_all(vkm_reward *r) {
    vkm_reward_close(r);
    unlink(scratch_path("reward.py"));
}

#define OK "    return json.dumps({'id': q['id'], 'reward': len(q['response'])})\n"

static void good_programs_pay_in_order(void **state) {
    enum { N = 300 };
    static char text[N + 1];
    vkm_reward *r =
        open_python("def answer(q):\n"
                    "    assert q['problem_id'] == 1 and q['mode'] == 'run_tests' and "
                    "len(q['problem']['gt_answer']) > 20\n"
                    "    return json.dumps({'id': q['id'], 'reward': len(q['response']) / 4, "
                    "'gt_correct': len(q['response']) % 2 == 1,\n"
                    "                       'exploited': False, 'can_compile': True})\n",
                    30);
    assert_true(vkm_reward_own(r));
    assert_false(vkm_reward_unsafe(r));
    for (int i = 0; i < N; i++) {
        text[i] = (char)(i % 9 ? 'a' : '\xff'); /* not all of it is UTF-8 */
        submit(r, *state, text);
    }
    for (int i = 0; i < N; i++) {
        vkm_grade g = next(r);
        if (g.infra_error) fail_msg("%s", g.reason);
        assert_true(g.reward == (float)(i + 1) / 4);
        assert_int_equal(g.evidence.gt_correct, i % 2 == 0);
        assert_int_equal(g.passed, i % 2 == 0);
        assert_true(g.evidence.can_compile && !g.exploited && !g.evidence.format_ok);
    }
    close_all(r);
}

/* Programs that misbehave for the response "bad" only: it has no verdict, the others have. */
static const struct {
    const char *name, *body, *says;
} liars[] = {
    {"no JSON", "def answer(q):\n    if q['response'] == 'bad': return 'reward: 1'\n" OK,
     "bad answer"},
    {"an empty line", "def answer(q):\n    if q['response'] == 'bad': return ''\n" OK,
     "bad answer"},
    {"wrong id",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': 77777, 'reward': "
     "1})\n" OK,
     "the order of the requests"},
    {"no reward",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id']})\n" OK,
     "reward"},
    {"NaN",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'reward': "
     "float('nan')})\n" OK,
     "NaN and Infinity"},
    {"inf",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'reward': "
     "float('inf')})\n" OK,
     "NaN and Infinity"},
    {"1e400",
     "def answer(q):\n    if q['response'] == 'bad': return '{\"id\": %d, \"reward\": 1e400}' % "
     "q['id']\n" OK,
     "too large"},
    {"a huge reward",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'reward': "
     "1e30})\n" OK,
     "reward"},
    {"a text",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'reward': "
     "'3'})\n" OK,
     "reward"},
    {"a typo",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'reward': "
     "1, 'gt_corect': True})\n" OK,
     "gt_corect"},
    {"a flood", "def answer(q):\n    if q['response'] == 'bad': return 'x' * (2 << 20)\n" OK,
     "more than"},
    {"death", "def answer(q):\n    if q['response'] == 'bad': os._exit(3)\n" OK, "exit code 3"},
    {"a signal", "def answer(q):\n    if q['response'] == 'bad': os.kill(os.getpid(), 9)\n" OK,
     "signal 9"},
    {"a closed stdout",
     "def answer(q):\n    if q['response'] == 'bad':\n        os.close(1); time.sleep(60)\n" OK,
     "closed its stdout"},
    {"sleep", "def answer(q):\n    if q['response'] == 'bad': time.sleep(60)\n" OK,
     "no answer within"},
    {"its own error",
     "def answer(q):\n    if q['response'] == 'bad': return json.dumps({'id': q['id'], 'error': "
     "'no GPU left'})\n" OK,
     "no GPU left"},
};

static void lying_programs_never_pay(void **state) {
    for (size_t i = 0; i < VKM_COUNTOF(liars); i++) {
        static const char *const texts[] = {"a", "bb", "bad", "bad", "cccc", "ddddd"};
        int slow = !strcmp(liars[i].name, "sleep");
        vkm_reward *r = open_python(liars[i].body, slow ? 0.4 : 30);
        for (size_t j = 0; j < VKM_COUNTOF(texts); j++) submit(r, *state, texts[j]);
        for (size_t j = 0; j < VKM_COUNTOF(texts); j++) {
            vkm_grade g = next(r);
            int bad = j == 2 || j == 3;
            if (g.infra_error != bad || (!bad && g.reward != (float)strlen(texts[j])))
                fail_msg("%s: response %zu: error %d, reward %g, %s", liars[i].name, j,
                         g.infra_error, (double)g.reward, g.reason);
            if (bad && (!isnan(g.reward) || g.passed || !strstr(g.reason, liars[i].says)))
                fail_msg("%s: reward %g, %s", liars[i].name, (double)g.reward, g.reason);
        }
        close_all(r);
    }
}

/* Answers in another order than the requests: no answer is taken for another one's. */
static void a_wrong_order_never_pays(void **state) {
    const char *path = scratch_file(
        "reward.py",
        "import sys, json\n"
        "while True:\n"
        "    a, b = json.loads(sys.stdin.readline()), json.loads(sys.stdin.readline())\n"
        "    for q in (b, a): print(json.dumps({'id': q['id'], 'reward': len(q['response'])}))\n");
    char line[VKM_PATH_MAX + 64];
    snprintf(line, sizeof line, "exec /usr/bin/python3 -S %s 2>/dev/null", path);
    vkm_reward *r = open_line(line, 0.4, VKM_REWARD_FROM_COMMAND);
    submit(r, *state, "a");
    submit(r, *state, "bb");
    for (int i = 0; i < 2; i++) assert_true(next(r).infra_error);
    close_all(r);
}

/* The first start of a program fails in several ways, the second does not: every response is paid.
 */
static void a_restart_mends(void **state) {
    static const char *const ways[] = {"exit 1", "sleep 60", "echo x; cat >/dev/null",
                                       "head -c 100 >/dev/null; exit 0"};
    for (size_t i = 0; i < VKM_COUNTOF(ways); i++) {
        char body[VKM_PATH_MAX * 2], flag[64], line[VKM_PATH_MAX + 8];
        snprintf(flag, sizeof flag, "/tmp/vkmoe-reward-%d", (int)getpid());
        snprintf(
            body, sizeof body,
            "if mkdir %s 2>/dev/null; then %s; fi\n"
            "exec /usr/bin/python3 -S -c \"\nimport sys, json\n"
            "for line in sys.stdin:\n"
            "    q = json.loads(line); print(json.dumps({'id': q['id'], 'reward': -1.5}))\n\"\n",
            flag, ways[i]);
        snprintf(line, sizeof line, "sh %s", scratch_file("reward.py", body));
        vkm_reward *r = open_line(line, 0.5, VKM_REWARD_FROM_COMMAND);
        for (int j = 0; j < 5; j++) submit(r, *state, "text");
        for (int j = 0; j < 5; j++) {
            vkm_grade g = next(r);
            if (g.infra_error || g.reward != -1.5f) fail_msg("%s: %s", ways[i], g.reason);
        }
        close_all(r);
        (void)rmdir(flag);
    }
}

/* A program that never works ends the run with its reason, rather than dropping every group. */
static void a_broken_program_ends_the_run(void **state) {
    vkm_reward *r = open_line("/nonexistent/program 2>/dev/null", 5, VKM_REWARD_FROM_COMMAND);
    vkm_err err = {0};
    vkm_grade g;
    for (int i = 0; i < 20; i++) submit(r, *state, "text");
    int n = 0;
    while (n < 20 && !vkm_reward_next(r, &g, &err)) {
        assert_true(g.infra_error && isnan(g.reward));
        n++;
    }
    assert_int_equal(n, VKM_COMMAND_GIVE_UP / 2);
    assert_int_equal(err.status, VKM_FAILED);
    assert_non_null(strstr(err.msg, "exit code 127"));
    assert_non_null(strstr(err.msg, "/nonexistent/program"));
    vkm_reward_close(r);
}

/* What is still running is ended with the program and what it started. */
static void closing_ends_it(void **state) {
    vkm_reward *r = open_line("sleep 61 & exec sleep 61", 60, VKM_REWARD_FROM_COMMAND);
    submit(r, *state, "text");
    usleep(200000);
    vkm_reward_close(r);
    assert_int_not_equal(system("ps -eo args | grep -q '^[s]leep 61$'"), 0);
}

/* The program `vkmoe grade` speaks the same contract: its rewards are the built-in ones. */
static void the_built_in_grader_as_a_program(void **state) {
    env *e = *state;
    vkm_reward *own = open_line("true", 5, VKM_REWARD_FROM_GRADER);
    vkm_reward *r =
        open_line(VKM_BINARY_DIR "/vkmoe grade --jobs 1 --quiet", 30, VKM_REWARD_FROM_BOTH);
    vkm_strbuf b = {0};
    vkm_strbuf_printf(&b, "```python\n%s\n```", e->problems->items->canonical_solution);
    const char *texts[] = {b.data, "no code", "```python\nclass Solution: pass\n```",
                           "```python\nx = '\x01'\n"};
    for (size_t i = 0; i < VKM_COUNTOF(texts); i++) {
        submit(own, e, texts[i]);
        submit(r, e, texts[i]);
    }
    for (size_t i = 0; i < VKM_COUNTOF(texts); i++) {
        vkm_grade a = next(own), c = next(r);
        if (c.infra_error) fail_msg("%s", c.reason);
        assert_true(a.reward == c.reward);
        assert_int_equal(a.evidence.can_compile, c.evidence.can_compile);
    }
    vkm_strbuf_free(&b);
    vkm_reward_close(r);
    vkm_reward_close(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_programs_pay_in_order),
        cmocka_unit_test(lying_programs_never_pay),
        cmocka_unit_test(a_wrong_order_never_pays),
        cmocka_unit_test(a_restart_mends),
        cmocka_unit_test(a_broken_program_ends_the_run),
        cmocka_unit_test(closing_ends_it),
        cmocka_unit_test(the_built_in_grader_as_a_program),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
