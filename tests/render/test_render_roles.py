"""Roles: the user's own, overriding, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from render_meshes import mesh, node, renderer

from meshctl.errors import Diagnostic, InventoryError, RenderError
from meshctl.model.resources import File, Handler, Nftables, NodeDoc, Package, Service, Sysctl
from meshctl.render.roles import MODULES


@pytest.fixture(name="write")
def _write(tmp_path: Path) -> Any:
    def write(**files: str) -> Path:
        """Files of a user's role `mine`, by part (`tasks="…"`), or of the folder `templates__NAME="…"`."""
        for name, text in files.items():
            part, _, file = name.partition("__")
            path = tmp_path / "roles" / "mine" / part / (file.replace("_", ".") or "main.yml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def render(base_dir: Path, *roles: str, **more: Any) -> NodeDoc:
    made = node("a", 1, roles=roles or ("mine",), agent=False, **more)
    return renderer(mesh(made, node("b", 2), base_dir=str(base_dir))).node("a")


def findings(base_dir: Path, *roles: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(InventoryError) as caught:
        render(base_dir, *roles)
    return caught.value.diagnostics


def failure(base_dir: Path, **more: Any) -> RenderError:
    with pytest.raises(RenderError) as caught:
        render(base_dir, **more)
    return caught.value


def content(doc: NodeDoc, path: str) -> str:
    found = next(r for r in doc.resources if isinstance(r, File) and r.path == path)
    return (found.content or b"").decode()


def test_every_module_makes_its_resource(write: Any) -> None:
    base = write(
        tasks="""
- name: all of them
  package: {name: [a, b], state: absent}
- copy: {src: f.txt, dest: /etc/f, mode: "0640", owner: alice, group: staff}
  no_log: true
- file: {path: /etc/link, state: link, src: /etc/f}
- file: {path: /etc/gone, state: absent}
- sysctl: {name: net.core.rmem_max, value: 4194304}
  notify: again
- service: {name: "x@{{ item }}", state: started, enabled: "{{ item == 'one' }}"}
  loop: [one, two]
- template: {src: t.j2, dest: "/etc/{{ node.name }}.conf"}
  when: [vars.wanted, "node.name == 'a'"]
- nftables: {table: theirs, state: runtime}
- copy: {content: "no", dest: /etc/never}
  when: false
""",
        handlers="""
- name: again
  service: {name: unit, state: reloaded}
- name: unused
  service: {name: other, state: restarted}
""",
        defaults="wanted: true\ngreeting: hello\n",
        files__f_txt="text\n",
        templates__t_j2="{{ greeting }} {{ interfaces[0].interface }}\n",
    )
    doc = render(base, vars={"greeting": "goodbye"})
    assert Package(("a", "b"), "absent") in doc.resources
    assert Sysctl("net.core.rmem_max", "4194304", ("again",)) in doc.resources
    assert {Service("x@one", "started", True), Service("x@two", "started", False)} <= set(doc.resources)
    assert doc.handlers == (Handler("again", "unit", "reloaded"),)
    files = {r.path: r for r in doc.resources if isinstance(r, File)}
    assert files["/etc/f"] == File("/etc/f", "file", b"text\n", "0640", "alice", "staff", sensitive=True)
    assert files["/etc/link"].target == "/etc/f"
    assert files["/etc/gone"].state == "absent"
    assert files["/etc/a.conf"].content == b"goodbye wg0\n"
    assert "/etc/never" not in files
    assert Nftables("inet", "theirs", None) in doc.resources


def test_a_template_that_is_not_text_is_named_with_its_line(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /etc/t}\n", templates__t_j2="one\n")
    (base / "roles" / "mine" / "templates" / "t.j2").write_bytes(b"one\n\xff\n")
    with pytest.raises(RenderError, match="byte 0xff is not UTF-8") as caught:
        render(base)
    assert caught.value.where.endswith("templates/t.j2:2 (node a)")


def test_content_keeps_its_last_newline(write: Any) -> None:
    doc = render(write(tasks='- copy: {content: "{{ node.name }}\\n", dest: /etc/x}\n'))
    assert content(doc, "/etc/x") == "a\n"


def test_a_user_s_role_replaces_the_packaged_one_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "roles" / "firewall" / "tasks"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_text("- copy: {content: mine, dest: /etc/mine}\n")
    doc = render(tmp_path, "anchor")
    assert content(doc, "/etc/mine") == "mine"
    assert not any(isinstance(r, Service) and r.name == "meshctl-firewall" for r in doc.resources)


def test_a_user_s_template_replaces_the_packaged_one_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "wg-quick.conf.j2").write_text("# {{ item.interface }} of {{ mesh.nodes | length }}\n")
    assert content(render(tmp_path, "anchor"), "/etc/wireguard/wg0.conf") == "# wg0 of 2\n"


def test_a_role_s_own_template_comes_before_the_user_s_folder(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /etc/t}\n", templates__t_j2="role\n")
    (base / "templates").mkdir()
    (base / "templates" / "t.j2").write_text("folder\n")
    assert content(render(base), "/etc/t") == "role\n"


def test_dependencies_come_first_and_once(write: Any) -> None:
    base = write(tasks="- copy: {content: x, dest: /etc/x}\n", meta="dependencies: [anchor, {role: gateway}]\n")
    paths = [r.path for r in render(base).resources if isinstance(r, File)]
    assert paths.count("/etc/sysctl.d/90-meshctl.conf") == 1
    assert paths.index("/etc/sysctl.d/90-meshctl.conf") < paths.index("/etc/x")


def test_an_unknown_module_is_answered_with_the_eight_and_the_nearest(write: Any) -> None:
    (found,) = findings(write(tasks="- name: x\n  templte: {src: a, dest: /b}\n"))
    assert found.code == "unknown-module"
    assert "did you mean `template`?" in found.message
    assert all(module in found.hint for module in MODULES)
    assert found.where().endswith("roles/mine/tasks/main.yml:2:3")


def test_all_mistakes_of_all_files_come_at_once_with_their_places(write: Any) -> None:
    base = write(
        tasks="""
- template: {src: a, dst: /b}
- service: {name: x, state: running}
- copy: {src: a, dest: /b}
  sysctl: {name: a, value: b}
- sysctl: {name: a, value: [1]}
- file: {path: /a, state: link}
- package: {name: x}
  notify: nobody
""",
        handlers="- name: h\n  service: {name: x, state: started}\n",
        meta="dependencies: anchor\n",
        defaults="- a list\n",
    )
    listed = findings(base)
    found = {(Path(d.file).parent.name, d.line): d for d in listed}
    assert any(d.message == "unknown key `dst`; did you mean `dest`?" and d.line == 2 for d in listed)
    assert found["tasks", 3].hint == "one of started, stopped"
    assert "one module, not 2" in found["tasks", 4].message
    assert found["tasks", 6].message == "`value` must be text or a whole number"
    assert found["tasks", 7].message == "`file` lacks `src`"
    assert found["handlers", 2].hint == "one of restarted, reloaded"
    assert found["meta", 1].message == "`dependencies` must be a list"
    assert found["defaults", 1].message == "`defaults` must be a mapping"


def test_a_notify_without_handler_is_found_before_anything_runs(write: Any) -> None:
    base = write(
        tasks="- package: {name: x}\n  notify: restrt\n",
        handlers="- name: restart\n  service: {name: x, state: restarted}\n",
    )
    (found,) = findings(base)
    assert (found.code, found.line) == ("unknown-handler", 2)
    assert "did you mean `restart`?" in found.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a: [", "yaml-syntax"), ("\ttasks", "yaml-tab"), ("- &a {x: 1}\n- &a {x: 2}\n", "yaml-syntax"),
        ("just text", "role-schema"),
    ],
)
def test_text_that_is_no_yaml_is_a_finding(write: Any, text: str, words: str) -> None:
    assert words in {d.code for d in findings(write(tasks=text))}


def test_an_unknown_role_is_answered_with_the_roles_that_there_are(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, "ancor")
    assert found.code == "unknown-role"
    assert "did you mean `anchor`?" in found.hint


def test_roles_that_depend_on_each_other_are_named(write: Any) -> None:
    (found,) = findings(write(meta="dependencies: [mine]\n"))
    assert found.message == "roles depend on each other: mine -> mine"


def test_an_undefined_variable_names_template_line_node_and_the_nearest_name(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /x}\n", templates__t_j2="one\ntwo {{ interfces }}\n")
    error = failure(base)
    assert error.where == f"{base}/roles/mine/templates/t.j2:2 (node a)"
    assert error.message == "`interfces` is undefined; did you mean `interfaces`?"


def test_an_undefined_attribute_names_what_it_could_have_been(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /x}\n", templates__t_j2="{{ node.regon }}\n")
    assert failure(base).message == "`node` has no `regon`; did you mean `region`?"


def test_mistakes_in_a_task_name_its_line(write: Any) -> None:
    for task, words in (
        ('copy: {content: "{{ nothing }}", dest: /x}', "`nothing` is undefined"),
        ("copy: {content: x, dest: relative}", "not an absolute path"),
        ("copy: {content: x, dest: /etc/../x}", "not an absolute path"),
        ("copy: {src: missing, dest: /x}", "there is no file `missing`"),
        ("copy: {src: ../tasks/main.yml, dest: /x}", "there is no file"),
        ("template: {src: wg-quik.conf.j2, dest: /x}", "did you mean `wg-quick.conf.j2`?"),
        ("template: {src: ../x, dest: /x}", "there is no template"),
        ("wireguard: {interface: wg7}", "a has no interface `wg7`; did you mean `wg0`?"),
        ("nftables: {table: other, src: firewall.nft.j2}", "does not give the table inet other"),
        ('service: {name: x, enabled: "{{ node.name }}"}', "`enabled` is `a`"),
        ('package: {name: "{{ node.routes }}"}', "`name` is `()`"),
    ):
        error = failure(write(tasks=f"# a comment\n- {task}\n"))
        assert words in str(error)
        assert error.where.endswith("roles/mine/tasks/main.yml:2 (node a)")
        assert error.hint
    for key, value in (("loop", '"{{ node.name }}"'), ("when", "node.nme == 'a'"), ("when", "1 +")):
        error = failure(write(tasks=f"- copy: {{content: x, dest: /x}}\n  {key}: {value}\n"))
        assert error.where.endswith("roles/mine/tasks/main.yml:1 (node a)")


def test_a_template_s_syntax_error_names_template_and_line(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /x}\n", templates__t_j2="one\n{% if %}\n")
    assert failure(base).where == f"{base}/roles/mine/templates/t.j2:2 (node a)"


@pytest.mark.parametrize(
    "expression",
    [
        "node.__class__.__mro__", "''.__class__", "mesh.nodes.clear()", "mesh.nodes.pop('a')",
        "interfaces[0]._psks[0].reveal()",
    ],
)
def test_templates_reach_no_internals_and_change_nothing(write: Any, expression: str) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /x}\n", templates__t_j2="{{ " + expression + " }}\n")
    error = failure(base)
    assert "t.j2:1" in error.where


def test_a_failing_template_is_explained_and_not_a_traceback(write: Any) -> None:
    base = write(tasks="- template: {src: t.j2, dest: /x}\n", templates__t_j2="{{ 1 / 0 }}\n")
    assert failure(base).message == "ZeroDivisionError: division by zero"


def test_two_roles_may_want_the_same_but_not_differently(write: Any) -> None:
    same = write(tasks="- package: {name: nftables}\n- file: {path: /etc/meshctl, state: directory, mode: '0755'}\n")
    assert sum(isinstance(r, Package) and r.names == ("nftables",) for r in render(same).resources) == 1
    other = write(tasks="- file: {path: /etc/meshctl, state: directory, mode: '0700'}\n")
    assert failure(other).message == "roles firewall and mine want file /etc/meshctl differently"


def test_a_variable_must_not_hide_what_templates_need(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="`interfaces` is not free"):
        render(tmp_path, "anchor", vars={"interfaces": []})


def test_a_stock_client_has_no_document() -> None:
    made = mesh(node("fra", 1, endpoint=True, roles=("anchor",)), node("phone", 9, client=True))
    with pytest.raises(RenderError, match="client show phone"):
        renderer(made).node("phone")
