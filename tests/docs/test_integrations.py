"""The GitHub workflows and the pre-commit hook: well-formed, and their commands run."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.checking.profiles import DEFAULT, PROFILES

yaml = pytest.importorskip("yaml", reason="needs pyyaml")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOW = ROOT / ".github" / "workflows" / "conformance.yml"
NIGHTLY = ROOT / ".github" / "workflows" / "nightly.yml"
PUBLISH = ROOT / ".github" / "workflows" / "publish.yml"
ACTION = ROOT / "action.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
WRONG = ROOT / "tests" / "data" / "wrong_adapters.py"
QUICK = "--clause weights.unbiased --max-examples 3"

pytestmark = pytest.mark.skipif(not WORKFLOW.is_file(), reason="the source tree is not here")


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOW.read_text())


@pytest.fixture(scope="module")
def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return steps_of(workflow)


def steps_of(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run as a runner's shell does, with the command of this environment on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_named_reads_only_what_it_must_and_has_whole_steps(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"]
    assert workflow[True], "says when it runs"  # YAML reads a bare `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps_of(workflow):
        assert ("run" in step) != ("uses" in step), step
        assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", step.get("uses", "any/a@v1")), step


class TestWorkflow:
    def test_uses_the_inputs_that_it_declares(self, workflow: dict[Any, Any]) -> None:
        inputs = workflow[True]["workflow_call"]["inputs"]
        used = set(re.findall(r"\binputs\.([\w-]+)", WORKFLOW.read_text()))
        assert used == set(inputs)
        for name, each in inputs.items():
            assert {"description", "type"} <= set(each), name
            assert each.get("required", False) != ("default" in each), name

    def test_passes_no_expression_but_the_callers_own_command_to_a_shell(
        self, steps: list[dict[str, Any]]
    ) -> None:
        pasted = [step["run"] for step in steps if "${{" in step.get("run", "")]
        assert pasted == ["${{ inputs.install }}"]

    def test_installs_the_suite_that_it_checks_out(self, steps: list[dict[str, Any]]) -> None:
        (folder,) = (s["with"]["path"] for s in steps if "repository" in s.get("with", {}))
        (install,) = (s["run"] for s in steps if s.get("name") == "Install the suite")
        assert install == f"python -m pip install ./{folder}"

    def check(self, steps: list[dict[str, Any]], folder: Path, adapters: str, **more: str) -> Any:
        """Run the step that checks, with the environment that GitHub sets."""
        (step,) = (step for step in steps if step.get("name") == "Check")
        inputs = {"adapters": adapters, "options": QUICK, "profile": "smoke"}
        given = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: inputs[found[1]], value)
            for name, value in step["env"].items()
        }
        return shell(step["run"], folder, GITHUB_ACTIONS="true", **given, **more)

    def test_its_check_passes_a_right_router(
        self, steps: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        done = self.check(steps, tmp_path, f"reference {WRONG}:Router")
        assert done.returncode == 0, done.stderr
        assert "::error" not in done.stdout

    def test_its_check_fails_a_wrong_one_and_leaves_what_it_uploads(
        self, steps: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        summary = tmp_path / "summary.md"
        done = self.check(
            steps, tmp_path, f"{WRONG}:BiasedWeights", GITHUB_STEP_SUMMARY=str(summary)
        )
        assert done.returncode == 1, done.stderr
        assert f"::error file={WRONG}," in done.stdout
        assert summary.read_text().startswith("## moe-routing: 1 broken clause")
        paths = steps[-1]["with"]["path"].split()
        assert all(list((tmp_path / path).rglob("*.*")) for path in paths), paths
        assert len(list((tmp_path / "moe-routing-report").iterdir())) == 3


class TestAction:
    @pytest.fixture
    def action(self) -> dict[str, Any]:
        return yaml.safe_load(ACTION.read_text())

    def test_has_what_github_wants_and_uses_the_inputs_that_it_declares(
        self, action: dict[str, Any]
    ) -> None:
        assert {"name", "description", "inputs", "outputs", "runs"} <= set(action)
        assert action["runs"]["using"] == "composite"
        used = set(re.findall(r"\binputs\.([\w-]+)", ACTION.read_text()))
        assert used == set(action["inputs"])
        for name, each in action["inputs"].items():
            assert set(each) == {"description", "default"}, name
            assert isinstance(each["default"], str), "inputs of an action are text"
        for step in action["runs"]["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert ("shell" in step) == ("run" in step), "a composite action has no default"
            assert re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)?@v\d+", step.get("uses", "any/action@v1"))

    def test_passes_no_expression_but_the_callers_own_command_to_a_shell(
        self, action: dict[str, Any]
    ) -> None:
        pasted = [s["run"] for s in action["runs"]["steps"] if "${{" in s.get("run", "")]
        assert pasted == ["${{ inputs.install }}"]

    def step(self, action: dict[str, Any], name: str, **inputs: str) -> tuple[str, dict[str, str]]:
        """Return the command of a step and its environment, as GitHub makes them."""
        (step,) = (each for each in action["runs"]["steps"] if each["name"] == name)
        given = {"inputs": {k: v["default"] for k, v in action["inputs"].items()} | inputs}
        given["github"] = {"action_path": str(ROOT)}

        def filled(text: str) -> str:
            found = r"\$\{\{ (\w+)\.([\w-]+) \}\}"
            return re.sub(found, lambda each: given[each[1]][each[2]], text)

        return filled(step["run"]), {k: filled(v) for k, v in step.get("env", {}).items()}

    def test_installs_the_backend_and_itself(self, action: dict[str, Any], tmp_path: Path) -> None:
        command, environment = self.step(action, "Install the backend", install="echo mine")
        assert shell(command, tmp_path, **environment).stdout == "mine\n"
        command, environment = self.step(action, "Install the suite")
        said = shell(f"python() {{ echo $*; }}; {command}", tmp_path, **environment)
        assert said.stdout == f"-m pip install {ROOT}\n"

    @pytest.mark.parametrize(("name", "code"), [("Router", 0), ("BiasedWeights", 1)])
    def test_checks_and_leaves_what_it_uploads(
        self, name: str, code: int, action: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.moe-routing]\nadapters = ["{WRONG}:{name}"]\nprofile = "smoke"\n'
        )
        command, environment = self.step(action, "Check", options=QUICK)
        done = shell(command, tmp_path, GITHUB_ACTIONS="true", **environment)
        assert done.returncode == code, done.stderr
        described = action["outputs"]["reports"]
        folder = tmp_path / described["value"]
        named = set(re.findall(r"\w+\.\w+", described["description"]))
        assert {each.name for each in folder.iterdir()} == named
        (upload,) = (s["with"]["path"] for s in action["runs"]["steps"] if s["name"][:4] == "Keep")
        paths = upload.split()
        assert all((tmp_path / path).is_dir() for path in paths[: 1 + code])
        (scanned,) = (s["with"] for s in action["runs"]["steps"] if "sarif" in s.get("uses", ""))
        assert (tmp_path / scanned["sarif_file"]).is_file()


class TestPublish:
    def test_runs_for_a_release_alone_and_needs_no_token(self) -> None:
        workflow = yaml.safe_load(PUBLISH.read_text())
        assert workflow[True] == {"release": {"types": ["published"]}}
        assert "secrets." not in PUBLISH.read_text()
        jobs = workflow["jobs"]
        assert jobs["publish"]["permissions"] == {"id-token": "write"}
        assert jobs["publish"]["environment"] == "pypi"
        assert jobs["publish"]["needs"] == "build"
        assert "permissions" not in jobs["build"]
        assert not [step for step in jobs["publish"]["steps"] if "run" in step]

    @pytest.mark.parametrize(("sign", "code"), [("", 0), ("9", 1)])
    def test_refuses_a_tag_of_another_version(self, sign: str, code: int) -> None:
        (step,) = (
            each
            for each in steps_of(yaml.safe_load(PUBLISH.read_text()))
            if each.get("name", "").startswith("Is the tag")
        )
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        tag = f"v{project['version']}{sign}"
        assert shell(step["run"], ROOT, TAG=tag).returncode == code

    def test_its_environments_are_those_of_tox(self) -> None:
        tox = configparser.ConfigParser(interpolation=None)
        tox.read(ROOT / "tox.ini")
        named = re.findall(r"tox (?:run )?-e (\w+)", PUBLISH.read_text())
        named += re.findall(r"tox -e (\w+)", (ROOT / "docs" / "publishing.md").read_text())
        assert set(named) == {"release", "docs"}
        assert all(f"testenv:{name}" in tox for name in named)


class TestNightly:
    @pytest.fixture
    def steps(self) -> list[dict[str, Any]]:
        return steps_of(yaml.safe_load(NIGHTLY.read_text()))

    def test_runs_every_night_and_by_hand(self) -> None:
        runs = yaml.safe_load(NIGHTLY.read_text())[True]
        assert set(runs) == {"schedule", "workflow_dispatch"}
        (when,) = runs["schedule"]
        assert re.fullmatch(r"\d+ \d+ \* \* \*", when["cron"])

    @pytest.mark.parametrize(("night", "seed"), [(1, 5), (2, 10)])
    def test_draws_seeds_of_its_own(
        self, steps: list[dict[str, Any]], night: int, seed: int, tmp_path: Path
    ) -> None:
        """The five from 0 on are those of the pages, so that the first night begins at 5."""
        (step,) = (step for step in steps if "tox run" in step.get("run", ""))
        assert step["env"] == {"NIGHT": "${{ github.run_number }}"}
        said = shell(f"tox() {{ echo $*; }}; {step['run']}", tmp_path, NIGHT=str(night))
        assert said.stdout == f"run -e nightly -- --seed {seed}\n"

    @pytest.mark.parametrize(
        ("only", "resident", "draws"),
        [("mutants", "scale-twice", 100), ("variants", "fused-scale", 2000)],
    )
    def test_its_environment_makes_the_pages_that_are_kept(
        self, steps: list[dict[str, Any]], only: str, resident: str, draws: int, tmp_path: Path
    ) -> None:
        """Both commands of tox, run on one resident each."""
        tox = configparser.ConfigParser(interpolation=None)
        tox.read(ROOT / "tox.ini")
        (line,) = re.findall(
            rf"^tox exec -q -e test -- (moe-routing zoo --only {only} .*) {{posargs}}$",
            tox["testenv:nightly"]["commands"],
            re.M,
        )
        profile = "nightly" if "--profile nightly" in line else DEFAULT
        assert PROFILES[profile].max_examples == draws
        few = f"--seed 5 --max-examples 9 --clause weights.scale {resident}"
        done = shell(f"{line} {few}", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        (page,) = (tmp_path / steps[-1]["with"]["path"]).glob("*.md")
        assert f"`{line} {few}`" in page.read_text(), "how to repeat it"
        assert len(json.loads(page.with_suffix(".json").read_text())["seeds"]) == 5


class TestHook:
    def test_its_entry_runs(self, tmp_path: Path) -> None:
        (hook,) = yaml.safe_load(HOOKS.read_text())
        for name, code in (("Router", 0), ("BiasedWeights", 1)):
            done = shell(f"{hook['entry']} {WRONG}:{name} {QUICK}", tmp_path)
            assert done.returncode == code, done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("name", "word", "code"), [("Router", "Passed", 0), ("BiasedWeights", "Failed", 1)]
    )
    def test_runs_under_pre_commit(self, name: str, word: str, code: int, tmp_path: Path) -> None:
        pytest.importorskip("pre_commit", reason="needs pre-commit")
        hooks, mine = tmp_path / "hooks", tmp_path / "mine"
        for folder in (hooks, mine):
            folder.mkdir()
            git(folder, "init", "--quiet")
        (hooks / HOOKS.name).write_text(HOOKS.read_text())
        revision = commit(hooks)
        arguments = [f"{WRONG}:{name}", *shlex.split(QUICK)]
        entry = {"repo": str(hooks), "rev": revision}
        entry["hooks"] = [{"id": "moe-routing", "args": arguments}]
        (mine / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [entry]}))
        (mine / "router.py").write_text("")
        commit(mine)
        done = shell("pre-commit run --all-files", mine, PRE_COMMIT_HOME=str(tmp_path / "home"))
        assert done.returncode == code, done.stdout + done.stderr
        assert re.search(rf"^MoE routing conformance\.+{word}$", done.stdout, re.M), done.stdout


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return git(folder, "rev-parse", "HEAD")
