"""The comment on a pull request: what it shows, how long it may be, and what must not get out of it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from meshctl.cli.plan_comment import plan_markdown
from meshctl.core.change import Change
from meshctl.deploy.outcome import FileDiff, PlanOutcome
from meshctl.errors import Diagnostic, RemoteError
from meshctl.reports.markdown import SIZE_MAX_BYTES, Entry, Section, comment, write
from meshctl.reports.report import Report, case_of

GITHUB_MAX_CHARACTERS = 65_536
# What a hostile or unlucky text is made of, besides anything.
HOSTILE = st.lists(
    st.sampled_from(
        ["```", "~~~~", "\n", "\r\n", "</details>", "</code>", "<img src=x onerror=a>", "-->", "@org/team", "#1",
         "](x)", "*", "_", "https://x.example", "/close\n", "::error::x\n", "&lt;", "|", "`" * 9, "\x1b[31m",
         "\u202e", "a"]
    ),
    max_size=12,
).map("".join) | st.text(max_size=30)  # fmt: skip


def change(node: str, name: str = "wg0", **after: object) -> Change:
    return Change(node, "file", "create", name, None, after)


def tokens(text: str) -> list[Token]:
    """As a parser of CommonMark with GitHub's extensions reads it; inline tokens too."""
    parser = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    return [t for block in parser.parse(text) for t in (block, *(block.children or ()))]


def test_a_plan_is_one_line_and_a_section_for_each_host() -> None:
    outcome = PlanOutcome(
        changes=(
            change("hub", "/etc/a", mode="0644"),
            Change("web1", "mtu", "update", "wg0", {"mtu": 1420}, {"mtu": 1400}),
            Change("web1", "peer", "delete", "db1", {"endpoint": "x"}, None),
        ),
        errors=(RemoteError("no route to host", node="web2", kind="unreachable", hint="is it up?"),),
        diffs=(FileDiff("web1", "/etc/b", "old\n", "new\n"),),
    )
    assert plan_markdown(outcome, "inventory.yml") == (
        "<!-- meshctl plan inventory.yml -->\n"
        "**meshctl plan** <code>inventory&#46;yml</code>: **1 host could not be read.** "
        "1 to add, 1 to change, 1 to destroy. (2 hosts)\n"
        "\n<details><summary><code>web2</code>: could not be read</summary>\n\n"
        "```diff\nweb2: unreachable: no route to host; is it up?\n```\n\n</details>\n"
        "\n<details><summary><code>hub</code>: 1 change</summary>\n\n"
        "```diff\n+ create file /etc/a\n      mode: 0644\n```\n\n</details>\n"
        "\n<details><summary><code>web1</code>: 2 changes</summary>\n\n"
        "```diff\n! update mtu wg0\n      mtu: 1420 -> 1400\n- delete peer db1\n      endpoint: x\n\n"
        "--- web1:/etc/b\n+++ web1:/etc/b\n@@ -1 +1 @@\n-old\n+new\n```\n\n</details>\n"
    )


def test_nothing_to_do_is_one_line() -> None:
    text = plan_markdown(PlanOutcome(()), "inventory.yml")
    assert text.splitlines()[1:] == [
        "**meshctl plan** <code>inventory&#46;yml</code>: No changes. Every host is as the inventory says."
    ]


def test_what_does_not_fit_is_left_out_by_the_line_and_counted() -> None:
    changes = tuple(change(f"n{i // 50:03}", f"/etc/{i:05}" + "x" * 500) for i in range(500))
    text = plan_markdown(PlanOutcome(changes), "inventory.yml")
    assert SIZE_MAX_BYTES - 2000 < len(text) <= SIZE_MAX_BYTES
    shown = re.findall(r"\+ create file /etc/(\d{5})x{500}\n", text)
    assert [int(number) for number in shown] == list(range(len(shown)))
    assert f"\n{500 - len(shown)} more did not fit in a comment: <code>meshctl plan -i inventory&#46;yml" in text
    assert f"\n{-len(shown) % 50} more not shown.\n" in text
    assert text.count("<details>") == text.count("</details>") == -(-len(shown) // 50)
    assert text.startswith("<!-- meshctl plan inventory.yml -->\n")
    assert "500 to add" in text.splitlines()[1]


def test_a_long_line_hides_neither_its_ends_nor_others() -> None:
    text = plan_markdown(PlanOutcome((change("a", "x" * 70_000 + "end"), change("b"))), "inventory.yml")
    assert "<code>b</code>" in text
    assert "+ create file xxx" in text
    assert "xxxend\n" in text
    assert "more" not in text


def test_what_is_worse_comes_before_what_comes_first() -> None:
    lost = tuple(Entry("- " + "x" * 900, 1) for _ in range(100))
    sections = [Section("a", "100 lost", lost), Section("b", "1 gained", (Entry("+ everything"),))]
    text = comment("policy diff", "i.yml", "1 gained, 100 lost", sections, "meshctl policy diff")
    assert "+ everything\n" in text
    assert len(text) > SIZE_MAX_BYTES - 2000


def test_ten_thousand_findings_show_the_first() -> None:
    found = tuple(Diagnostic("policy-test", f"number {n:05}", "i.yml", n, 1) for n in range(1, 10_001))
    text = write(Report("test", "i.yml", found, tuple(map(case_of, found))))
    numbers = [int(n) for n in re.findall(r"number (\d{5})", text)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 1000
    assert f"{10_000 - len(numbers)} more did not fit" in text


@given(st.lists(st.tuples(HOSTILE, st.integers(0, 80), st.sampled_from("a`é🦡")), max_size=6), HOSTILE)
def test_a_comment_is_never_too_long(parts: list[tuple[str, int, str]], inventory: str) -> None:
    sections = [
        Section(title, "1 change", (*[Entry(letter * 900)] * count, Entry("`" * 99, 1)))
        for title, count, letter in parts
    ]
    text = comment("plan", inventory, "1 to add", sections, f"meshctl plan -i {inventory}")
    assert len(text.encode()) <= SIZE_MAX_BYTES < GITHUB_MAX_CHARACTERS


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_gets_out_of_its_fence_or_its_code(title: str, body: str, inventory: str) -> None:
    sections = [Section(title, "1 change", (Entry(body),)), Section("last", "1 change", (Entry("end"),))]
    text = comment("plan", inventory, "1 to add", sections, "meshctl plan")
    found = tokens(text)
    fences = [t for t in found if t.type == "fence"]
    assert [t.info for t in fences] == ["diff", "diff"]
    assert fences[1].content == "end\n"
    html = "".join(t.content for t in found if t.type in ("html_block", "html_inline"))
    # In HTML blocks the entities are still entities: what is left are our own tags.
    tags = re.findall(r"<[^>]*>", re.sub(r"<!-- meshctl plan [^>]* -->", "", html))
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}
    assert tags.count("<details>") == tags.count("</details>") == 2
    assert not [t.type for t in found if t.type in ("link_open", "image", "em_open", "s_open", "heading_open")]
    # GitHub looks for mentions and references in the page, but for what is code there.
    page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)
    prose = re.sub(r"<pre>.*?</pre>|<code>.*?</code>|<!--.*?-->", "", page, flags=re.DOTALL)
    assert re.sub(r"<[^>]*>|\s", "", prose) == "meshctlplan:1toadd:1change:1change"


def test_the_marker_tells_inventories_apart_and_not_runs() -> None:
    first = [comment("plan", name, words, [], "x").splitlines()[0]
             for name, words in (("a.yml", "1 to add"), ("a.yml", "2 to add"), ("b.yml", "1 to add"))]  # fmt: skip
    assert first[0] == first[1] != first[2]
