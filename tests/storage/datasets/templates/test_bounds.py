"""Whatever a template asks for ends soon, in little memory, as one clear error or as a text."""

import resource
import threading
import time
from typing import Any

import msgspec
import pytest

from storage.datasets.templates.row_template import RowTemplate
from storage.endpoints import CHAT_COMPLETIONS as CHAT
from storage.errors import RowFault, TemplateError

MOST_SECONDS = 2.0  # of the thread's own time; it is under a fifth of that on an idle machine
MOST_KILOBYTES = 192 * 1024

LONG = "ab " * 300_000
ROW: dict[str, Any] = {
    "x": "text",
    "long": LONG,
    "spaces": " " * 900_000,
    "digits": "9" * 4_000,
    "many": list(range(50_000)),
    "deep": msgspec.json.decode("[" * 900 + "]" * 900),
    "big": 10**4_000,
    "raw": msgspec.Raw(b"1." + b"1" * 100_000),
    "texts": [LONG, LONG[:-1]] * 5_000,
    "words": ["a"] * 50_000,
    "nulls": [None] * 50_000,
    "empties": [""] * 50_000,
    "wide": {f"n{n}": n for n in range(20_000)},
}


def doubled(first: str, again: str, times: int = 40) -> str:
    return "{% set v = " + first + " %}" + ("{% set v = " + again + " %}") * times


LOOP = "{% for i in range(10000) %}"
END = "{% endfor %}"

ATTACKS = {
    # Loops.
    "a long range": "{% for i in range(10**7) %}x{% endfor %}",
    "a range without end": "{% for i in range(10**18, 0, -1) %}x{% endfor %}",
    "a range over huge numbers": "{{ range(10**100) }}",
    "a range of no interval": "{{ range(0, 9, 0) }}",
    "loops in loops": "{% for i in range(1000) %}" * 3 + "x" + END * 3,
    "ten loops in loops": "{% for i in range(100) %}" * 10 + "x" + END * 10,
    "loops that do nothing": LOOP + LOOP + END + END,
    "loops whose filter does all": "{% for i in range(9999) if range(9999)|sort|length < 0 %}"
    + END,
    "loops over a column": "{% for a in many %}{% for b in many %}{% endfor %}{% endfor %}",
    "loops over a text": "{% for a in long %}{% for b in long %}{% endfor %}{% endfor %}",
    "loops over an object": "{% for a in wide %}{% for b in wide %}{% endfor %}{% endfor %}",
    "loops with much inside": LOOP + "{{ x|upper|lower|title }}" * 400 + END,
    "loops that set": LOOP + LOOP + "{% set y = i %}" + END + END,
    "loops that capture": LOOP + "{% set y %}{{ long }}{% endset %}" + END,
    "loops that print much": LOOP + "{{ long }}" + END,
    "loops of literal text": LOOP + "0123456789" * 2_000 + END,
    "loops over pieces": LOOP + "{{ long[:-1]|length }}" + END,
    "loops over lists of pieces": LOOP + "{{ many[1:]|length }}" + END,
    "loops that compare": LOOP + "{{ long == long ~ '' }}" + END,
    "loops that compare lists": LOOP + "{{ texts == texts[:] }}" + END,
    "loops that order": LOOP + "{{ long < long[:-1] }}" + END,
    "loops that search": LOOP + "{{ 'zz' in long }}" + END,
    "loops that search lists": LOOP + "{{ 'zz' in texts }}" + END,
    # Long texts.
    "a text times a number": "{{ 'x' * 10**9 }}",
    "a number times a text": "{{ 10**9 * 'x' }}",
    "texts times numbers": "{{ ('x' * 10**6 * 10**6)|length }}",
    "an empty text replaced": "{{ long|replace('', long) }}",
    "a letter replaced": "{{ long|replace('a', long) }}",
    "the method replace": "{{ long.replace('a', long) }}",
    "texts doubled by ~": doubled("'xxxxxxxx'", "v ~ v") + "{{ v }}",
    "texts doubled by +": doubled("'xxxxxxxx'", "v + v") + "{{ v }}",
    "texts doubled by captures": "{% set v = 'x' %}" + "{% set v %}{{ v }}{{ v }}{% endset %}" * 40,
    "texts doubled by replace": doubled("'xx'", "v|replace('x', 'xx')") + "{{ v }}",
    "texts doubled by join": doubled("'xx'", "[v, v]|join(v)") + "{{ v }}",
    "one column many times": "{{ long }}" * 3_000,
    "joined by a long text": "{{ words|join(long) }}",
    "the method join": "{{ long.join(words) }}",
    "texts joined": "{{ texts|join }}",
    "texts in JSON": "{{ texts }}",
    "texts in JSON by a filter": "{{ texts|tojson|length }}",
    "a printf of a wide number": "{{ '%1000000000d' % 1 }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "the method format": "{{ '{:1000000000d}'.format(1) }}",
    "the filter center": "{{ x|center(10**9) }}",
    "the filter indent": "{{ long|indent(10**9) }}",
    "the filter wordwrap": "{{ long|wordwrap(1, wrapstring=long) }}",
    "the method ljust": "{{ x.ljust(10**9) }}",
    "the method zfill": "{{ x.zfill(10**9) }}",
    "the method expandtabs": "{{ x.expandtabs(10**9) }}",
    "the method translate": "{{ x.translate({}) }}",
    "the method encode": "{{ x.encode() }}",
    "lorem ipsum": "{{ lipsum(10**6) }}",
    # Lists and objects.
    "lists doubled": doubled("[1, 2, 3, 4]", "v + v") + "{{ v|length }}",
    "lists within lists": doubled("[1]", "[v, v]") + "{{ v }}",
    "lists within lists compared": doubled("[1]", "[v, v]")
    + "{% set w = v %}"
    + doubled("[1]", "[v, v]")
    + "{{ v == w }}",
    "lists within lists sorted": doubled("'x'", "[v, v]") + "{{ [v, v]|sort }}",
    "lists within lists joined": doubled("[1]", "[v, v]") + "{{ [v]|join }}",
    "objects within objects": doubled("{'a': 1}", "{'a': v, 'b': v}") + "{{ v|tojson }}",
    "a list of one column": "{{ [" + "long, " * 2_000 + "] }}",
    "a list of one number": "{{ [" + "raw, " * 2_000 + "]|join }}",
    "nothing but indents": "{% set v = ["
    + "1, " * 2_000
    + "] %}"
    + doubled("v", "[v]", 500)
    + "{{ v|tojson(indent=8) }}",
    "a long text in pieces": LOOP + "{{ long.split() }}" + END,
    "a long text in lines": LOOP + "{{ spaces.splitlines() }}" + END,
    "letters of a text": LOOP + "{{ long|list }}" + END,
    "long texts sorted": LOOP + "{{ texts|sort }}" + END,
    "all of it reversed": LOOP + "{{ many|reverse|last }}{{ long|reverse|last }}" + END,
    "JSON of nothing but brackets": LOOP + "{{ ('[' * 500 ~ ']' * 500)|fromjson }}" + END,
    "many attributes": LOOP + "{{ many|map(attribute=long) }}" + END,
    "nulls joined": LOOP + "{{ nulls|join }}" + END,
    "empty texts joined": LOOP + "{{ empties|join }}{{ ''.join(empties) }}" + END,
    "nulls joined by the method": LOOP + "{{ ''.join(nulls) }}" + END,
    "nulls joined by an attribute": LOOP + "{{ nulls|join(attribute=0) }}" + END,
    "nulls joined by a name": LOOP + "{{ nulls|join(attribute='') }}" + END,
    "nulls mapped": LOOP + "{{ nulls|map(attribute=0) }}" + END,
    # Numbers.
    "a power of a power": "{{ 10**(10**10) }}",
    "a power": "{{ 2**(10**9) }}",
    "powers in a row": doubled("3", "v ** 3") + "{{ v }}",
    "products in a row": doubled("10**200", "v * v") + "{{ v }}",
    "a huge number in the text": "{{ " + "9" * 5_000 + " }}",
    "a huge hexadecimal": "{{ 0x" + "f" * 50_000 + " }}",
    "a huge float": "{{ 1e999 }}",
    "a column's digits": LOOP + "{{ big * big }}" + END,
    "a column's fraction": LOOP + "{{ raw * raw }}" + END,
    "a power of a column": "{{ big ** big }}",
    "rounded to many digits": "{{ 1.5|round(10**9) }}",
    "a text as a number": LOOP + "{{ digits|int(none) + 1 }}" + END,
    # Depth.
    "parentheses": "{{ " + "(" * 2_000 + "1" + ")" * 2_000 + " }}",
    "brackets": "{{ " + "[" * 2_000 + "]" * 2_000 + " }}",
    "a long sum": "{{ 1" + " + 1" * 5_000 + " }}",
    "a long chain": "{{ x" + ".y" * 3_000 + " }}",
    "filters in a row": "{{ x" + "|trim" * 3_000 + " }}",
    "many nots": "{{ " + "not " * 3_000 + "x }}",
    "many minus signs": "{{ " + "-" * 3_000 + "1 }}",
    "many ifs": "{% if x %}" * 2_000 + "{% endif %}" * 2_000,
    "many choices": "{{ " + "1 if x else " * 2_000 + "1 }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a loop that calls itself": "{% for a in deep recursive %}{{ loop(a) }}{% endfor %}",
    "a caller": "{% call(x) x() %}{% endcall %}",
    "much markup": "{{ x }}" * 30_000,
    "much within one expression": "{{ [" + "1," * 100_000 + "] }}",
    # Ways out of the data.
    "the class": "{{ x.__class__ }}",
    "the class by a subscript": "{{ x['__class__'] }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the filter attr": "{{ x|attr('__class__') }}",
    "an attribute by map": "{{ [x]|map(attribute='__class__')|list }}",
    "a method that is not called": "{{ x.upper }}",
    "globals of a function": "{{ range.__globals__ }}",
    "globals of a filter": "{{ cycler.__init__.__globals__ }}",
    "the context": "{{ self._TemplateReference__context }}",
    "a format's attributes": "{{ '{0.__class__}'.format(x) }}",
    "a change of a list": "{{ many.append(1) }}",
    "a change of an object": "{{ wide.update({}) }}",
    "a change by set": "{% set wide.n0 = 1 %}",
    "an import": "{% import 'os' as os %}",
    "another import": "{% from 'os' import system %}",
    "an include": "{% include '/etc/passwd' %}",
    "an inheritance": "{% extends '/etc/passwd' %}",
    "a block": "{% block b %}{% endblock %}",
    "a namespace": "{% set ns = namespace(a=1) %}{{ ns }}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "a filter's block": "{% filter upper %}x{% endfilter %}",
}


def ended(template: str) -> tuple[str, float, int]:
    """How a template's rendering ends, the seconds that it took, and by how many kilobytes more
    memory was used than ever before."""
    before, started = peak(), time.thread_time()
    try:
        parsed = RowTemplate.parse(template + " ")
        parsed.check(ROW)
        made = parsed.body(ROW, CHAT)
        text = f"made {len(made['messages'][0]['content'])}"
    except (TemplateError, RowFault) as error:
        text = str(error)
    return text, time.thread_time() - started, peak() - before


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("template", ATTACKS.values(), ids=list(ATTACKS))
def test_an_attack_ends_as_a_clear_error(template: str) -> None:
    threads = threading.active_count()
    text, seconds, kilobytes = ended(template)
    assert text.startswith("The template ")
    assert len(text) < 1_000
    assert "\n" not in text
    assert seconds < MOST_SECONDS
    assert kilobytes < MOST_KILOBYTES
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{{ x.replace('x', '{{ y }}') }}", "x{% raw %}", "{{ y }}{% raw %}"),
        ("a {{ x }}", "{{ x }}{% for %}{#", "a {{ x }}{% for %}{#"),
        ("a {{ x }}", "<script>&'\"", "a <script>&'\""),
        ("a {{ x }}", "%s{0}\\1", "a %s{0}\\1"),
    ],
)
def test_what_a_column_holds_is_never_a_template(template: str, value: str, text: str) -> None:
    made = RowTemplate.parse(template).body({"x": value}, CHAT)
    assert made["messages"][0]["content"] == text


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in [1] %}{{ loop.__class__.__init__ }}{% endfor %}",
        "{{ meta.__class__ }}{{ meta.get('__class__') }}",
    ],
)
def test_names_of_python_are_names_like_others(template: str) -> None:
    made = RowTemplate.parse(template + ".").body({"meta": {}}, CHAT)
    assert made["messages"][0]["content"] == "."


@pytest.mark.parametrize(
    "template",
    [
        "{{ long|trim|lower }}",
        "{% for n in many[:5000] %}{{ loop.index }}: {{ n }}\n{% endfor %}",
        "{{ words|join(', ') }}",
        "{{ long|replace('a', 'xyz')|truncate(1000) }}",
        "{% for name, n in wide.items() if n % 2 %}{{ name }}={{ n }};{% endfor %}",
        "{{ deep }}{{ big }}{{ raw }}",
        "{{ long.split()|length }}{{ long.split('b')|length }}",
    ],
)
def test_what_a_large_row_needs_is_within_the_bounds(template: str) -> None:
    text, seconds, kilobytes = ended(template)
    assert text.startswith("made ")
    assert seconds < MOST_SECONDS
    assert kilobytes < MOST_KILOBYTES


def test_threads_share_a_template() -> None:
    template = RowTemplate.parse("{% set y = x %}{% for i in range(50) %}{{ y }}{% endfor %}")
    wrong: list[str] = []

    def render(letter: str) -> None:
        for _ in range(20):
            made = template.body({"x": letter}, CHAT)["messages"][0]["content"]
            if made != letter * 50:
                wrong.append(made)

    threads = [threading.Thread(target=render, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
