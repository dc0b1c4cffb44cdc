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
from meshctl.errors import RemoteError
from meshctl.reports.markdown import SIZE_MAX_BYTES, Section, comment

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


def test_hosts_that_do_not_fit_are_left_out_whole_and_counted() -> None:
    changes = tuple(change(f"n{i:03}", "/etc/" + "x" * 2000) for i in range(100))
    text = plan_markdown(PlanOutcome(changes), "inventory.yml")
    assert len(text) < GITHUB_MAX_CHARACTERS
    shown = text.count("<details>")
    assert shown == text.count("</details>") == len(re.findall(r"\+ create file /etc/x{2000}\n", text)) > 20
    assert f"\n{100 - shown} more are too long for a comment: <code>meshctl plan -i inventory&#46;yml" in text
    assert text.startswith("<!-- meshctl plan inventory.yml -->\n")
    assert "100 to add" in text.splitlines()[1]


def test_a_host_that_is_too_long_does_not_hide_the_others() -> None:
    text = plan_markdown(PlanOutcome((change("a", "x" * 70_000), change("b"))), "inventory.yml")
    assert "<code>b</code>" in text
    assert "\n1 more is too long for a comment: " in text


@given(st.lists(st.tuples(HOSTILE, st.integers(0, 70_000), st.sampled_from("a`é🦡")), max_size=6), HOSTILE)
def test_a_comment_is_never_too_long(parts: list[tuple[str, int, str]], inventory: str) -> None:
    sections = [Section(title, "1 change", letter * size) for title, size, letter in parts]
    text = comment("plan", inventory, "1 to add", sections, f"meshctl plan -i {inventory}")
    assert len(text.encode()) <= SIZE_MAX_BYTES < GITHUB_MAX_CHARACTERS


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_gets_out_of_its_fence_or_its_code(title: str, body: str, inventory: str) -> None:
    sections = [Section(title, "1 change", body), Section("last", "1 change", "end")]
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
