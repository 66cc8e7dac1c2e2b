/* Python literals, == and assert splitting. */
#include "env_fixture.h"

static vkm_py parsed(const char *text) {
    vkm_py v;
    const char *form = vkm_py_parse(text, strlen(text), &v);
    if (form) fail_msg("%s: %s", text, form);
    return v;
}

static void equality_is_pythons(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool equal;
    } rows[] = {
        {"2", "2.0", true},
        {"True", "1", true},
        {"False", "0.0", true},
        {"True", "2", false},
        {"None", "0", false},
        {"None", "None", true},
        {"[1, 2]", "(1, 2)", false},
        {"[1, 2]", "[1, 2, 3]", false},
        {"[1, [True]]", "[1.0, [1]]", true},
        {"(1)", "1", true},
        {"(1,)", "1", false},
        {"{1: 2, 'a': 3}", "{'a': 3, 1.0: 2}", true},
        {"{1: 2, True: 3}", "{1: 3}", true},
        {"{1: 2}", "{1: 3}", false},
        {"nan", "nan", false},
        {"-inf", "float('-inf')", true},
        {"float( \"inf\" )", "inf", true},
        {"0.0", "-0.0", true},
        {"9007199254740993", "9007199254740992.0", false},
        {"9007199254740992", "9007199254740992.0", true},
        {"10 ", "1e1", true},
        {"0", "1e-320", false},
        {"1", "1.5", false},
        {"-3", "-3.0", true},
        {"-3", "3.0", false},
        {"2", "inf", false},
        {"1606938044258990275541962092341162602522202993782792835301376",
         "0x1"
         "000000000000000"
         "00000000000000000000000000000000000",
         true},
        {"1606938044258990275541962092341162602522202993782792835301376",
         "1606938044258990275541962092341162602522202993782792835301376.0", true},
        {"1606938044258990275541962092341162602522202993782792835301377",
         "1606938044258990275541962092341162602522202993782792835301376.0", false},
        {"1_000_000", "1e6", true},
        {"0b101", "0o5", true},
        {"'a' \"b\"", "'ab'", true},
        {"'\\x41\\u00e9\\n\\101'", "'A\xc3\xa9\\nA'", true},
        {"r'\\n'", "'\\\\n'", true},
        {"'''a\nb'''", "'a\\nb'", true},
        {"'\\q'", "'\\\\q'", true},
        {"'1'", "1", false},
        {"''", "\"\"", true},
        {"[]", "()", false},
        {"{}", "{}", true},
        {"--5", "+5", true},
        {".5", "5e-1", true},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_py a = parsed(rows[i].a), b = parsed(rows[i].b);
        if (vkm_py_equal(&a, &b) != rows[i].equal || vkm_py_equal(&b, &a) != rows[i].equal)
            fail_msg("%s == %s is not %d", rows[i].a, rows[i].b, rows[i].equal);
        vkm_py_clear(&a);
        vkm_py_clear(&b);
    }
}

static void other_literals_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *form;
    } rows[] = {
        {"{1, 2}", "set"},
        {"[1] * 3", "expression on the right side"},
        {"1 + 1", "expression on the right side"},
        {"x", "name on the right side"},
        {"list_node([1])", "call on the right side"},
        {"b'a'", "bytes"},
        {"f'a'", "formatted string"},
        {"3j", "complex number"},
        {"012", "unreadable right side"},
        {"1__0", "unreadable right side"},
        {"'a", "unreadable right side"},
        {"[1, 2", "unreadable right side"},
        {"(,)", "unreadable right side"},
        {"{[1]: 2}", "dict with an unhashable key"},
        {"-'a'", "sign before what is not a number"},
        {"'\\N{DASH}'", "named character in a string"},
        {"", "unreadable right side"},
        {"1 2", "expression on the right side"},
        {"0x", "unreadable right side"},
        {"1e", "unreadable right side"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_py v;
        const char *form = vkm_py_parse(rows[i].text, strlen(rows[i].text), &v);
        if (!form) fail_msg("%s is taken", rows[i].text);
        assert_string_equal(form, rows[i].form);
    }
    char deep[400];
    vkm_py v;
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    assert_string_equal(vkm_py_parse(deep, 400, &v), "right side nested too deeply");
}

static void asserts_are_split_or_refused(void **state) {
    (void)state;
    static const struct {
        const char *line, *call, *form;
    } rows[] = {
        {"assert Solution().f(n = 1) == 2", "Solution().f(n = 1)", NULL},
        {"assert(Solution().f(1) == 2)", "Solution().f(1)", NULL},
        {"assert ( (Solution().f('==', \"a, b\") == [1]) )", "Solution().f('==', \"a, b\")", NULL},
        {"assert Solution().f(x == 1, lambda: 2) == True", "Solution().f(x == 1, lambda: 2)", NULL},
        {"assert sorted(Solution().f([3, 1])) == [1, 3]", "sorted(Solution().f([3, 1]))", NULL},
        {"assert Solution().f(1)", NULL, "truth of an expression (no ==)"},
        {"assert not Solution().f(1)", NULL, "negation (not)"},
        {"assert Solution().f(1) == 2 or True", NULL, "boolean expression (or)"},
        {"assert Solution().f(1) in [1]", NULL, "membership (in)"},
        {"assert Solution().f(1) is None", NULL, "identity (is)"},
        {"assert Solution().f(1) != 2", NULL, "comparison (!=)"},
        {"assert abs(Solution().f(1) - 2) < 1e-5", NULL, "comparison (<)"},
        {"assert Solution().f(1) == 2 == 2", NULL, "chained comparison"},
        {"assert Solution().f(1) == 2, 'message'", NULL, "message or tuple"},
        {"assert (Solution().f(1) == 2, 'always true')", NULL, "message or tuple"},
        {"assert Solution().f(1) + 1 == 2", NULL, "left side that is not one call"},
        {"assert [1] == [1]", NULL, "left side that is not one call"},
        {"assert 1 == 1", NULL, "left side that is not one call"},
        {"assert Solution().f(1)[0] == 1", NULL, "left side that is not one call"},
        {"assert Solution().f(1) == 2; x()", NULL, "more than one statement"},
        {"assert is_same_list(Solution().f(1), list_node([1]))", NULL,
         "truth of an expression (no ==)"},
        {"assert Solution().f(1) == list_node([1])", NULL, "call on the right side"},
        {"assertSolution().f(1) == 1", NULL, "not an assert"},
        {"print(1)", NULL, "not an assert"},
        {"assert Solution().f(1 == 1", NULL, "unreadable assert"},
        {"assert Solution().f('a) == 1", NULL, "unreadable assert"},
        {"assert Solution().f(1) == 1 # sure", NULL, "comment"},
        {"assert Solution().f(1)\\\n == 1", NULL, "unreadable assert"},
        {"assert Solution().f(1)\n == 1", NULL, "unreadable assert"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_assert a;
        const char *form = vkm_assert_parse(rows[i].line, strlen(rows[i].line), &a);
        if (!rows[i].form != !form || (form && strcmp(form, rows[i].form) != 0))
            fail_msg("%s: form %s, not %s", rows[i].line, form ? form : "handled",
                     rows[i].form ? rows[i].form : "handled");
        if (!form) assert_string_equal(a.call, rows[i].call);
        vkm_assert_clear(&a);
    }
}

/* Every cut of an encoding is malformed, and hostile lengths take no memory. */
static void decoding_survives_every_cut(void **state) {
    (void)state;
    static const uint8_t bytes[] =
        "L\3\0\0\0I-\2\0\0\0\1\2M\1\0\0\0S\1\0\0\0aD\0\0\0\0\0\0\0\0U\1\0\0\0T";
    size_t n = sizeof bytes - 1;
    vkm_py v;
    vkm_strbuf b = {0};
    assert_true(vkm_py_decode(bytes, n, &v));
    vkm_py_print(&v, &b);
    assert_string_equal(vkm_strbuf_str(&b), "[-0x201, {'a': 0.0}, (True,)]");
    vkm_py_clear(&v);
    vkm_strbuf_free(&b);
    for (size_t i = 0; i < n; i++) assert_false(vkm_py_decode(bytes, i, &v));
    assert_false(vkm_py_decode((const uint8_t *)"L\377\377\377\377", 5, &v));
    assert_false(vkm_py_decode((const uint8_t *)"NN", 2, &v));
    uint8_t deep[1000];
    memset(deep, 0, sizeof deep);
    for (size_t i = 0; i < 200; i++) deep[5 * i] = 'L', deep[5 * i + 1] = 1;
    assert_false(vkm_py_decode(deep, sizeof deep, &v));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_is_pythons),
        cmocka_unit_test(other_literals_are_refused_by_name),
        cmocka_unit_test(asserts_are_split_or_refused),
        cmocka_unit_test(decoding_survives_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
