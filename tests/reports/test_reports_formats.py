"""Each format by its own schema, whatever stands in an inventory."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator

import meshctl
from meshctl.errors import Diagnostic
from meshctl.inventory.explain import _CODES as SCHEMA_CODES
from meshctl.reports import FORMATS, Case, Report, case_of, write
from meshctl.reports.rules import explanation

SCHEMAS = Path(__file__).parent / "schemas"
SARIF = Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text()))
JUNIT = xmlschema.XMLSchema(SCHEMAS / "junit-10.xsd")
GITLAB_SEVERITIES = {"info", "minor", "major", "critical", "blocker"}

# Everything that Python can hold in a text, lone surrogates and control characters included.
HARD = ["<", "&", "]]>", '"', "'", "%", "\n", "\x00", "\x1b", "\ud800", "\ufffe", "\uffff", "\U0001f9a1"]
ANYTHING = st.lists(st.sampled_from(HARD) | st.characters(), max_size=12).map("".join)
FINDINGS = st.builds(
    Diagnostic,
    code=st.sampled_from(["unknown-key", "policy-test", "no-such-code"]),
    message=ANYTHING,
    file=st.sampled_from(
        ["", "inventory.yml", "a b/ü%20#?.yml", "/elsewhere/x.yml", "a:b.yml", "../../../../up.yml", "\udcff\n\x01.yml"]
    ),
    line=st.integers(0, 10**6),
    column=st.integers(0, 10**6),
    path=ANYTHING,
    hint=ANYTHING,
    severity=st.sampled_from(["error", "warning", "note"]),
)
CASES = st.builds(
    Case, name=ANYTHING, file=st.just("t_test.yml"), line=st.integers(0, 9), kind=st.just("policy-test"),
    failure=ANYTHING, note=ANYTHING,
)  # fmt: skip
REPORTS = st.builds(
    Report, command=st.sampled_from(["validate", "policy diff"]), inventory=st.just("inventory.yml"),
    findings=st.lists(FINDINGS, max_size=4).map(tuple), cases=st.lists(CASES, max_size=4).map(tuple),
)  # fmt: skip


def report(*findings: Diagnostic, fail_on: str = "error") -> Report:
    return Report("lint", "inventory.yml", findings, tuple(case_of(d, fail_on) for d in findings))


@given(REPORTS)
def test_sarif_is_valid_by_the_schema_of_2_1_0(found: Report) -> None:
    document = json.loads(write(found, "sarif"))
    SARIF.validate(document)
    (run,) = document["runs"]
    assert len(run["results"]) == len(found.findings)
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert uri["uri"].startswith("file:///") is ("uriBaseId" not in uri)
        assert uri["uri"].isascii()
        assert "\\" not in uri["uri"]
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(prints)) == len(prints)


def test_a_wrong_sarif_is_found_by_the_schema() -> None:
    document = json.loads(write(report(Diagnostic("x", "m")), "sarif"))
    document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    assert not SARIF.is_valid(document)


def test_sarif_keeps_two_inventories_of_one_repository_apart() -> None:
    names = ("prod/a b.yml", "test/inventory.yml")
    ids = [json.loads(write(Report("policy diff", name, (), ()), "sarif"))["runs"][0]["automationDetails"]["id"]
           for name in names]  # fmt: skip
    assert ids == ["meshctl/policy-diff/prod/a%20b.yml/", "meshctl/policy-diff/test/inventory.yml/"]


def test_sarif_has_no_links_and_no_placeholders_from_outside() -> None:
    finding = Diagnostic("x", "is {0} [ops; see](https://x.example)", "i.yml", hint="[a](1) {1}")
    (run,) = json.loads(write(report(finding), "sarif"))["runs"]
    told = r"is {{0}} \[ops; see\](https://x.example) (\[a\](1) {{1}})"
    assert run["results"][0]["message"]["text"] == told
    assert r"\[a\](1) {{1}}" in run["tool"]["driver"]["rules"][0]["help"]["text"]


@given(REPORTS)
def test_junit_is_valid_by_jenkins_schema_and_counts_what_it_holds(found: Report) -> None:
    text = write(found, "junit")
    JUNIT.validate(text)
    root = ElementTree.fromstring(text)  # noqa: S314 - our own output
    cases = root.findall("testsuite/testcase")
    assert len(cases) == int(root.get("tests", "")) == max(len(found.cases), 1)
    failed = [case.name for case in found.cases if case.failure]
    assert len(root.findall("testsuite/testcase/failure")) == int(root.get("failures", "")) == len(failed)
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names)


def test_junit_numbers_equal_names_in_linear_time() -> None:
    cases = (Case("web -> db", "t.yml"), Case("web -> db (2)", "t.yml"), *[Case("web -> db", "t.yml")] * 5_000)
    started = time.process_time()
    found = ElementTree.fromstring(write(Report("test", "i.yml", (), cases), "junit")).findall(".//testcase")  # noqa: S314
    assert time.process_time() - started < 2  # 6 s when each name is counted from 2 anew
    assert [case.get("name") for case in found[:4]] == ["web -> db", "web -> db (2)", "web -> db (3)", "web -> db (4)"]
    assert len({case.get("name") for case in found}) == len(cases)


def test_junit_keeps_markup_as_text_and_nothing_that_xml_cannot_hold() -> None:
    cases = (Case("a<b>&\"'\ufffe", "t.yml", 1, "policy-test", "]]> <x/>\x1b[0m\uffff\nnext"),)
    (case,) = ElementTree.fromstring(write(Report("test", "i.yml", (), cases), "junit")).findall(".//testcase")  # noqa: S314
    assert case.get("name") == "a<b>&\"'?"
    failure = case.find("failure")
    assert failure is not None
    assert failure.text == "t.yml:1: ]]> <x/>?[0m?\nnext"
    assert failure.get("message") == "t.yml:1: ]]> <x/>?[0m?"


@given(REPORTS)
def test_gitlab_gets_the_documented_fields(found: Report) -> None:
    entries = json.loads(write(found, "gitlab"))
    assert len(entries) == len(found.findings)
    for entry in entries:
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["severity"] in GITLAB_SEVERITIES
        assert set(entry["location"]) == {"path", "lines"}
        assert entry["location"]["path"]
        assert entry["location"]["lines"]["begin"] >= 1
    assert len({entry["fingerprint"] for entry in entries}) == len(entries)


@given(REPORTS)
def test_github_gets_one_command_a_finding_and_no_other(found: Report) -> None:
    lines = write(found, "github").splitlines()
    assert len(lines) == len(found.findings)
    assert all(line.startswith(("::error file=", "::warning file=", "::notice file=")) for line in lines)


@given(REPORTS)
def test_every_format_can_be_written_as_utf_8(found: Report) -> None:
    for style in FORMATS:
        write(found, style).encode()


def test_words_that_look_like_a_place_stay_as_they_are() -> None:
    words = f"(of 10:30) (main:i.yml:3) ({'x' * 5000}:1) (\x00:1)"
    assert words.replace("\x00", "?") in write(report(Diagnostic("x", words)), "github")


def test_github_annotations_escape_what_would_end_them() -> None:
    text = write(report(Diagnostic("x", "50% of\nit", "a,b:c.yml", 1, 2, hint="do: so, now")), "github")
    assert text == "::error file=a%2Cb%3Ac.yml,line=1,col=2,title=x::50%25 of%0Ait (do: so, now)\n"


@pytest.mark.parametrize("style", FORMATS)
def test_paths_are_those_of_the_repository_wherever_the_command_runs(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "net" / "prod").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "net" / "prod")
    for name in ("main.yml", str(tmp_path / "net" / "prod" / "main.yml"), "../prod/main.yml"):
        message = f"denied by policy `ssh` ({name}:7) [ops]"
        hint = f"the first is at {name}:2:5; rename one"
        text = write(report(Diagnostic("x", message, name, 3, 1, hint=hint)), style)
        text = text.replace("&#46;", ".")
        assert "(net/prod/main.yml:7)" in text
        assert "at net/prod/main.yml:2:5" in text
        assert not re.search(r"(?<!net/prod/)\bmain\.yml", text)
        assert str(tmp_path) not in text


def test_junit_says_of_what_has_no_line_that_it_is_the_inventory_s() -> None:
    text = write(report(Diagnostic("policy-lost", "m", severity="warning")), "junit")
    assert "<system-out>inventory.yml: warning[policy-lost]: m</system-out>" in text


@pytest.mark.parametrize("style", ["sarif", "github", "gitlab", "markdown"])
def test_errors_come_before_warnings_and_notes(style: str) -> None:
    found = (Diagnostic("x", "number", "i.yml", n, 1, hint=f"h-{level}", severity=level)
             for n, level in enumerate(("note", "warning", "error"), 1))  # fmt: skip
    text = write(report(*found), style)
    text = text[text.find('"results"'):] if style == "sarif" else text
    assert text.index("h-error") < text.index("h-warning") < text.index("h-note")


def test_a_fingerprint_stays_while_others_come_and_go_and_changes_with_the_words() -> None:
    def fingerprint(line: int, message: str, path: str = "policies[1].to") -> str:
        (entry,) = json.loads(write(report(Diagnostic("x", message, "i.yml", line, 1, path)), "gitlab"))
        return str(entry["fingerprint"])

    first = fingerprint(3, "before: denied by policy `a` (i.yml:9)")
    for moved in ("i.yml:10", "main:i.yml:9", "/else where/old.yml:1"):
        assert fingerprint(4, f"before: denied by policy `a` ({moved})") == first
    assert fingerprint(3, "before: denied by policy `a` (i.yml:9)", "policies[2].to") == first
    assert fingerprint(3, "before: denied by policy `a` (i.yml:9)", "policies[1].from") != first
    assert fingerprint(3, "before: denied by policy `b` (i.yml:9)") != first


def test_warnings_pass_in_junit_unless_they_are_to_fail() -> None:
    warning = Diagnostic("single-anchor", "m", "i.yml", 1, 1, severity="warning")
    assert 'failures="0"' in write(report(warning), "junit")
    assert "i.yml:1:1: warning[single-anchor]: m" in write(report(warning), "junit")
    assert 'failures="1"' in write(report(warning, fail_on="warning"), "junit")


def test_every_rule_has_an_explanation() -> None:
    package = Path(meshctl.__file__).parent
    files = [file for name in ("inventory", "policy", "render", "cli") for file in (package / name).glob("*.py")]
    calls = r"(?:\.error|\.warning|\.append|Diagnostic|Refused|report|_report|about)\("
    reported = re.compile(calls + r'\s*(?:[\w.\[\]]+, )?"([a-z]+(?:-[a-z0-9]+)*)"')
    codes = {code for file in files for code in reported.findall(file.read_text())} | set(SCHEMA_CODES.values())
    assert len(codes) > 60
    assert not [code for code in sorted(codes) if explanation(code).startswith("The rule ")]
