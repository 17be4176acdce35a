"""What templates say: text, columns, filters, methods, tests and statements."""

from typing import Any

import jinja2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.datasets.templates.row_template import RowTemplate
from storage.endpoints import COMPLETIONS
from storage.errors import RowFault, TemplateError

ROW: dict[str, Any] = {
    "body": " Sea and sky ",
    "title": "A day",
    "n": 7,
    "price": msgspec.Raw(b"1.50"),
    "ratio": 0.1,
    "yes": True,
    "null": None,
    "tags": ["b", "a", "C"],
    "meta": {"author": {"name": "Ann"}, "items": 3, "keys": "k"},
    "turns": [{"role": "user", "text": "Hi"}, {"role": "bot", "text": "Yes?"}],
    "my column": "odd",
    "row": "r",
    "html": "<b>&</b>",
    "json": '{"a": [1, 2.50]}',
    "empty": "",
}


def rendered(template: str, row: dict[str, Any] | None = None) -> str:
    """The prompt that a text makes; a full stop keeps it from being a value."""
    made = RowTemplate.parse(template + ".").body(ROW if row is None else row, COMPLETIONS)
    prompt = made["prompt"]
    assert isinstance(prompt, str)
    assert prompt.endswith(".")
    return prompt[:-1]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{ title }}", "A day"),
        ("{{title}}/{{ title }}", "A day/A day"),
        ("{{ n }} {{ yes }} {{ price }} {{ ratio }}", "7 true 1.50 0.1"),
        ("[{{ null }}{{ absent }}{{ meta.absent }}{{ meta.absent.deeper }}]", "[]"),
        ("{{ tags }} {{ meta }}", '["b","a","C"] {"author":{"name":"Ann"},"items":3,"keys":"k"}'),
        ("{{ html }}", "<b>&</b>"),
        ("{{ row['my column'] }} {{ row.title }} {{ row }}", "odd A day r"),
        ("{{ meta.author.name }} {{ meta['author']['name'] }}", "Ann Ann"),
        ("{{ meta.items }} {{ meta.keys }}", "3 k"),
        ("{{ tags[0] }} {{ tags[-1] }} {{ tags.1 }} [{{ tags[9] }}]", "b C a []"),
        (
            "{{ title[:1] }}|{{ title[2:] }}|{{ title[::-1] }}|{{ tags[1:] }}",
            'A|day|yad A|["a","C"]',
        ),
        # Filters.
        (
            "{{ body|trim }}|{{ body|upper|trim }}|{{ title|lower }}",
            "Sea and sky|SEA AND SKY|a day",
        ),
        ("{{ title|replace('A', 'The') }} {{ 'aaa'|replace('a', 'b', 2) }}", "The day bba"),
        ("{{ absent|default('x') }} {{ null|d('y') }} {{ empty|d('z') }}", "x y "),
        ("{{ empty|default('z', true) }}", "z"),
        ("{{ tags|join(', ') }} {{ tags|sort|join }} {{ tags|reverse|first }}", "b, a, C abC C"),
        ("{{ tags|sort(case_sensitive=true, reverse=true)|join }}", "baC"),
        ("{{ turns|map(attribute='text')|join(' ') }}", "Hi Yes?"),
        ("{{ turns|join('/', attribute='role') }}", "user/bot"),
        ("{{ turns|sort(attribute='role')|map(attribute='role')|first }}", "bot"),
        ("{{ tags|length }} {{ null|length }} {{ 'abc'|count }}", "3 0 3"),
        ("{{ tags|first }} {{ tags|last }} [{{ []|first }}]", "b C []"),
        ("{{ meta|tojson }}", '{"author":{"name":"Ann"},"items":3,"keys":"k"}'),
        ("{{ html|tojson }}", '"<b>&</b>"'),
        ("{{ {'a': [1]}|tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ (json|fromjson).a[1] }}", "2.50"),
        ("{{ 'one two three'|truncate(9, leeway=0) }}", "one..."),
        ("{{ 'one two'|truncate(20) }} {{ 'abcdef'|truncate(4, true, '~', 0) }}", "one two abc~"),
        ("{{ 2.5|round }} {{ 2.345|round(2) }} {{ 2.1|round(0, 'ceil') }}", "2.0 2.35 3.0"),
        ("{{ '12'|int + 1 }} {{ '1.9'|int }} {{ 'x'|int(5) }} {{ price|int }}", "13 1 5 1"),
        ("{{ '1.5'|float }} {{ 'x'|float }} {{ 'nan'|float(3) }}", "1.5 0.0 3"),
        ("{{ n|string ~ '!' }} {{ -n|abs }}", "7! 7"),
        ("{{ 'a b'|title }} {{ 'aB'|capitalize }} {{ 'ab'|list }}", 'A B Ab ["a","b"]'),
        # Methods.
        ("{{ body.strip() }} {{ title.upper() }}", "Sea and sky A DAY"),
        ("{{ title.split() }} {{ 'a,b'.split(',') }}", '["A","day"] ["a","b"]'),
        ("{{ title.startswith('A') }} {{ title.endswith('x') }}", "true false"),
        ("{{ meta.get('items') }} {{ meta.get('x', 'y') }}", "3 y"),
        ("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }} {% endfor %}", "a1 b2 "),
        ("{% for k, v in {'a': 1}|items %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ meta.keys() }} {{ {'a': 1}.values() }}", '["author","items","keys"] [1]'),
        ("{{ ', '.join(tags) }}", "b, a, C"),
        # Operators.
        ("{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 5 }} {{ 7 / 2 }}", "7 3 3 32 3.5"),
        ("{{ 'a' + 'b' }} {{ [1] + [2] }} {{ '-' * 3 }} {{ n ~ title }}", "ab [1,2] --- 7A day"),
        ("{{ n > 3 and yes }} {{ n < 3 or 'no' }} {{ not n }}", "true no false"),
        (
            "{{ 1 < n < 9 }} {{ n == 7 }} {{ title != 'x' }} {{ price == 1.5 }}",
            "true true true true",
        ),
        ("{{ 'a' in tags }} {{ 'z' not in tags }} {{ 'day' in title }}", "true true true"),
        ("{{ 'author' in meta }} {{ 'a' in null }}", "true false"),
        ("{{ 'yes' if yes else 'no' }} [{{ 'x' if null }}]", "yes []"),
        # Tests.
        ("{{ absent is defined }} {{ null is defined }} {{ null is none }}", "false true true"),
        ("{{ absent is undefined }} {{ n is number }} {{ price is number }}", "true true true"),
        ("{{ title is string }} {{ meta is mapping }} {{ tags is sequence }}", "true true true"),
        (
            "{{ n is odd }} {{ n is even }} {{ yes is true }} {{ yes is boolean }}",
            "true false true true",
        ),
        ("{{ title is not string }}", "false"),
        # Statements.
        ("{% if null %}a{% elif n %}b{% else %}c{% endif %}", "b"),
        (
            "{% for t in tags %}{{ loop.index }}{{ t }}{{ ',' if not loop.last }}{% endfor %}",
            "1b,2a,3C",
        ),
        ("{% for t in null %}x{% else %}none{% endfor %}", "none"),
        ("{% for t in tags if t != 'a' %}{{ loop.revindex }}{{ t }}{% endfor %}", "2b1C"),
        (
            "{% for i in range(3) %}{{ i }}{% endfor %} {{ range(6, 0, -2) }} {{ range(1, 3) }}",
            "012 [6,4,2] [1,2]",
        ),
        (
            "{% for a in tags %}{% for b in tags %}{{ loop.index0 }}{% endfor %}{% endfor %}",
            "012012012",
        ),
        ("{% set x = 1 %}{% for t in tags %}{% set x = 2 %}{% endfor %}{{ x }}", "1"),
        ("{% set a, b = [1, 2] %}{{ b }}{{ a }}", "21"),
        ("{% set x %}<{{ title }}>{% endset %}{{ x|lower }}", "<a day>"),
        ("{% with x = n + 1 %}{{ x }}{% endwith %}", "8"),
        ("{% if null %}{% set title = 'set' %}{% endif %}{{ title }}", "A day"),
        ("{% if yes %}{% set title = 'set' %}{% endif %}{{ title }}", "set"),
        ("{# said to nobody #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("a {{- title -}} b", "aA dayb"),
        ("{% if yes %}\nline\n{% endif %}\n", "line\n"),
        ("end\n\n", "end\n\n"),
    ],
)
def test_a_template_gives_this_text(template: str, text: str) -> None:
    assert rendered(template) == text


SAME_AS_JINJA = [
    "{{ a }}-{{ b }}",
    "{% for x in c %}{{ loop.index }}:{{ x }};{% else %}-{% endfor %}",
    "{% for x in c if x > 1 %}{{ loop.first }}{{ loop.length }}{{ x }}{% endfor %}",
    "{% set y = a %}{% for x in c %}{% set y = y ~ x %}{{ y }}{% endfor %}{{ y }}",
    "{% if a == b %}same{% elif a < b %}less{% else %}more{% endif %}",
    "{{ a|upper|replace('A', b)|trim }} {{ a|truncate(5, leeway=0) }} {{ a|title }}",
    "{{ c|join(a) }} {{ c|length }} {{ c|sort|join(',') }} {{ c|reverse|join(',') }}",
    "{{ a[1:3] }}{{ b[-1:] }} {{ c[0] if c else 'none' }}",
    "{%- for x in c -%} {{ x * 2 }} {%- endfor -%}",
    "{% set s %}{{ a }}{{ b }}{% endset %}{{ s.split('x') | join('|') }}",
    "{% with a = b, z = a %}{{ a }}{{ z }}{% endwith %}{{ a }}",
]

JINJA = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
BOTH = [(JINJA.from_string(each), RowTemplate.parse(each + ".")) for each in SAME_AS_JINJA]


@settings(max_examples=40)
@given(
    a=st.text("abx AÉß", max_size=12),
    b=st.text("abx\n", max_size=6),
    c=st.lists(st.integers(-3, 9), max_size=5),
)
def test_what_jinja_gives_is_given_here(a: str, b: str, c: list[int]) -> None:
    row = {"a": a, "b": b, "c": c}
    for theirs, ours in BOTH:
        expected = theirs.render(row).replace("True", "true").replace("False", "false")
        assert ours.body(row, COMPLETIONS)["prompt"] == expected + "."


@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_column_stands_in_the_text_as_it_is(before: str, value: str) -> None:
    before = before.replace("{", "(").replace("\r", "\n")
    assert rendered(before + "{{ x }}", {"x": value}) == before + value


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ title + n }}", "a string and a number cannot be added; ~ joins texts"),
        ("{{ null + 1 }}", "null is no number"),
        ("{{ 1 // 0 }}", "a number is divided by zero"),
        ("{{ 1.5 % 0 }}", "a number is divided by zero"),
        ("{{ title.x }}", "a string has no entry 'x'"),
        ("{{ tags['x'] }}", "an array has no entry 'x'"),
        ("{{ n < title }}", "a number and a string have no order"),
        ("{% for a, b in tags %}{% endfor %}", "2 names are set, to a string"),
        ("{% for x in n %}{% endfor %}", "a number has no entries"),
        ("{{ n|length }}", "a number has no length"),
        ("{{ title|fromjson }}", "a text is not the JSON"),
        ("{{ 1e308 * 10 }}", "a number is out of range"),
        ("{{ (-8) ** 0.5 }}", "a number is out of range"),
        ("{{ tags|sort(attribute='x') }}", "a string has no entry 'x'"),
        ("{{ {n: 1} }}", "the names in an object are texts"),
        ("{{ title|truncate(1) }}", "less than its end"),
        ("{{ range(1.5) }}", "from integer to integer"),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_the_place(template: str, fault: str) -> None:
    made = RowTemplate.parse([{"role": "user", "content": f"{template}."}])
    with pytest.raises(RowFault) as caught:
        made.body(ROW, "/v1/chat/completions")
    text = str(caught.value)
    assert text.startswith("The template at messages[0].content cannot be rendered: ")
    assert fault in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("a\n{{ x }", "line 2: unexpected '}' (in '{{ x }')."),
        ("{{ x|uper }}", "there is no filter 'uper'. Did you mean 'upper'?"),
        ("{{ x is strin }}", "there is no test 'strin'. Did you mean 'string'?"),
        ("{{ x.uper() }}", "there is no method 'uper'. Did you mean 'upper'?"),
        ("{{ x|replace('a') }}", "the filter 'replace' takes old, new, count."),
        ("{{ x|upper(1) }}", "the filter 'upper' takes no arguments."),
        ("{{ f(x) }}", "f(…) cannot be called"),
        ("{{ x|join(*y) }}", "without * and **"),
        ("{% if x %}", "Unexpected end of template"),
        ("{% frobnicate %}", "Encountered unknown tag 'frobnicate'"),
        ("{% macro m() %}{% endmacro %}", "'macro' is not something that a template for rows"),
        ("{% set ns.x = 1 %}", "only names"),
        ("{{ row[x] }}", "row[…] takes the name of a column"),
        ("{{ '\ud800' }}", "half of a surrogate pair"),
        ("{{ '\\ud800' }}", "half of a surrogate pair"),
    ],
)
def test_a_text_that_is_no_template_is_one_clear_error(template: str, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        RowTemplate.parse([{"role": "user", "content": template}])
    error = caught.value
    assert error.code == "invalid_template"
    assert error.param == "tidemill.template.messages[0].content"
    assert str(error).startswith("The template is wrong at messages[0].content")
    assert says in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("template", "columns"),
    [
        ("{{ a }}{{ b.c }}{{ d['e'] }}{{ row['f g'] }}{{ row.h }}", {"a", "b", "d", "f g", "h"}),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{{ y }}{% endfor %}{{ x }}", {"xs", "y", "x"}),
        ("{% set a = b %}{{ a }}", {"b"}),
        ("{{ a }}{% set a = b %}", {"a", "b"}),
        ("{% if c %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}", {"c"}),
        ("{% if c %}{% set a = 1 %}{% else %}{{ a }}{% endif %}", {"c", "a"}),
        ("{% if c %}{% set a = 1 %}{% endif %}{{ a }}", {"c", "a"}),
        ("{% with a = a %}{{ a }}{% endwith %}{{ b }}", {"a", "b"}),
        ("{% set a %}{{ b }}{% set c = 1 %}{% endset %}{{ a }}{{ c }}", {"b", "c"}),
        ("{% for a in b if c %}{{ a }}{% else %}{{ d }}{% endfor %}", {"b", "c", "d"}),
        ("{{ x|default(y) }}{{ z is defined }}{{ range(n) }}", {"x", "y", "z", "n"}),
        ("nothing", set()),
    ],
)
def test_the_columns_that_are_read_are_known(template: str, columns: set[str]) -> None:
    assert RowTemplate.parse(template).columns == columns
