"""Draw small defects in the package ("mutants") and count those that the tests notice.

    python -m tests.mutants --out build/mutants.json            # resumes, if the file exists
    python -m tests.mutants --out build/after.json --before build/mutants.json

Needs `pip install coverage`, and Linux. A single process imports Paddle and collects the tests. A forked child
runs each test file and records which tests execute which lines. Then a forked child judges each mutant: it changes the
code of the functions in place and runs the cheapest tests that execute the changed line. A mutant is killed if a test
fails that passes without it. Mutants are ranked by a hash of the seed, the function's name and the changed expression,
so that two commits draw the same mutants where their code is the same, whatever the file.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Optional

import pytest

import paddle_ranker

PACKAGE = Path(paddle_ranker.__file__).parent
ROOMS = ("encoding", "training", "scoring", "retrieval", "metrics", "serving/core")
TESTS = ("metrics", "encoding", "scoring", "retrieval", "training", "serving", "lexical", "evaluation", "recall")
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
NEGATED = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)  # whose swap is the negation
REPORTS = {"print", "note", "report", "debug", "info", "warning", "error", "exception", "getLogger"}
MARKS = "(unit or parity) and not (slow or server or browser or real_data)"
# What the package imports in functions; else each child would import it.
PRELOADED = ("scipy.stats", "scipy.optimize", "sklearn.metrics", "sklearn.linear_model", "jieba", "faiss")
TEST_SECONDS = 5  # of a core, as all seconds here: a test or shared fixture that takes longer is left out
MUTANT_TESTS, MUTANT_SECONDS = 15, 5  # against one mutant, but at least the cheapest test
FILE_SECONDS = 600
WAIT_SECONDS = 60  # of the clock, in which none of the child's threads wants to run
CHILD_BYTES = 10 << 30  # a mutant may ask for more memory than there is
STATES = ("killed", "timeout", "survived", "uncovered")


@dataclass(frozen=True)
class Mutant:
    """Change number `place` of a module's syntax tree; the same `key` is the same change in another commit."""

    room: str
    path: Path
    place: int
    lines: range  # of the statement's head
    key: str


def is_text(node: object) -> bool:
    """Return True for what only a person reads: errors, notes, f-strings; and for a function's parameters."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", getattr(node.func, "attr", "")) in REPORTS
    return isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments))


def is_dropped(statement: ast.stmt) -> bool:
    """Return True if a mutant drops this statement: calls, raises, `+=`, assignments to attributes and items."""
    if isinstance(statement, ast.Expr):
        call = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
        return isinstance(call, ast.Call) and not is_text(call)
    if isinstance(statement, ast.Assign):
        return isinstance(statement.targets[0], (ast.Attribute, ast.Subscript))
    return isinstance(statement, (ast.Raise, ast.AugAssign))


def changes(node: Any) -> Iterator[tuple[str, object, str, ast.AST]]:
    """Yield each change of `node`: field, new value, description, and the node that must run to notice it."""
    operators = getattr(node, "ops", [getattr(node, "op", None)])
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        test = node.test
        swaps = isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and isinstance(test.ops[0], NEGATED))
        if not swaps:
            yield "test", ast.UnaryOp(ast.Not(), test), f"not ({ast.unparse(test)})", node
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand), f"not ({ast.unparse(node)})", node
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(operators):
            swap = SWAPS[type(operator)]
            yield "ops", [*node.ops[:i], swap(), *node.ops[i + 1 :]], f"{ast.unparse(node)}: {swap.__name__} {i}", node
    elif type(operators[0]) in SWAPS:
        swap = SWAPS[type(operators[0])]
        yield "op", swap(), f"{ast.unparse(node)}: {swap.__name__}", node
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        yield "value", node.value + 1, f"{node.value} + 1", node
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        value = ast.IfExp(ast.Constant(True), ast.Constant(None), node.value)  # keeps the closure's variables
        yield "value", value, f"{ast.unparse(node)}: None", node
    for field in ("body", "orelse", "finalbody"):
        block: Any = getattr(node, field, None)
        for i, statement in enumerate(block if isinstance(block, list) else []):
            if is_dropped(statement):
                skipped = ast.copy_location(ast.If(ast.Constant(False), [statement], []), statement)
                yield field, [*block[:i], skipped, *block[i + 1 :]], f"{ast.unparse(statement)}: dropped", statement


def walk(
    node: Any, name: str = "", lines: range = range(0), inside: bool = False
) -> Iterator[tuple[ast.AST, str, object, str, range]]:
    """Yield the changes in the functions under `node`: node, field, value, description, lines of the statement."""

    def head(statement: Any) -> range:
        body = getattr(statement, "body", None)
        return range(statement.lineno, max(statement.lineno + 1, body[0].lineno if body else statement.end_lineno + 1))

    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        name, inside = f"{name}.{node.name}", not isinstance(node, ast.ClassDef)
    lines = head(node) if isinstance(node, ast.stmt) else lines
    for field, value, text, place in changes(node) if inside else ():
        yield node, field, value, f"{name} {text}", head(place) if isinstance(place, ast.stmt) else lines
    for field, child in ast.iter_fields(node):
        for item in child if isinstance(child, list) else [child]:
            seen = isinstance(item, ast.AST) and field not in ("annotation", "returns", "decorator_list")
            if seen and not (inside and is_text(item)):
                yield from walk(item, name, lines, inside)


def draw(seed: int, number: int) -> list[Mutant]:
    """Draw an equal number of mutants of each room, `number` in all, by the hash of their keys."""
    drawn = []
    for room in ROOMS:
        mutants, seen = [], Counter[str]()
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for place, (_, _, _, text, lines) in enumerate(walk(ast.parse(path.read_text()))):
                seen[text] += 1
                mutants.append(Mutant(room, path, place, lines, f"{room} {text} #{seen[text]}"))
        mutants.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
        drawn += [(rank, mutant) for rank, mutant in enumerate(mutants[: -(-number // len(ROOMS))])]
    return [mutant for _, mutant in sorted(drawn, key=lambda pair: pair[0])]  # rooms in turn: any prefix is a sample


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield `code` and the code of all functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


class Judge:
    """Pytest plugin: run the collected tests in forked children, with and without mutants."""

    def __init__(self, options: argparse.Namespace, mutants: list[Mutant], folder: Path) -> None:
        self.options, self.mutants, self.folder = options, mutants, folder
        self.drawn = {"seed": options.seed, "mutants": [mutant.key for mutant in mutants]}
        self.record: dict[str, Any] = {**self.drawn, "files": {}, "states": {}}
        if options.out.exists():
            record = json.loads(options.out.read_text())
            self.record = record if record.items() >= self.drawn.items() else self.record
        self.failed: list[str] = []
        self.costs: dict[str, float] = defaultdict(float)  # seconds of a core
        self.coverage: Any = None
        self.sound: dict[str, bool] = {}
        self.functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)

    def pytest_report_teststatus(self) -> tuple[str, str, str]:
        return "", "", ""  # prints nothing

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        """Measure a shared fixture apart from the first test that uses it: each test needs it in its own child."""
        if not self.coverage or fixturedef.scope == "function":
            return (yield)
        name, before, key = self.current, time.process_time(), f"{fixturedef.argname} {request.param_index}"
        self.switch(key)
        try:
            return (yield)
        finally:
            self.costs[key] += (spent := time.process_time() - before)
            self.costs[name] -= spent
            self.switch(name)

    def switch(self, name: str) -> None:
        self.current = name
        self.coverage.switch_context(name)

    def run(self, tests: list[pytest.Item], mutant: Optional[Mutant] = None) -> list[str]:
        """Run tests until one fails, all while mapping; return the failed, or "same" if the mutant changes no code."""
        if mutant and not self.mutate(mutant):
            return ["same"]
        for test, following in zip(tests, [*tests[1:], None]):
            before = time.process_time()
            if self.coverage:
                self.switch(test.nodeid)
                signal.setitimer(signal.ITIMER_PROF, TEST_SECONDS)
            test.ihook.pytest_runtest_protocol(item=test, nextitem=following)
            self.costs[test.nodeid] += time.process_time() - before
            if self.failed and not self.coverage:
                break
        return self.failed

    def map(self, tests: list[pytest.Item]) -> dict[str, dict[str, float]]:
        """Return the tests that execute each mutant's lines, with their costs, of tests that pass."""
        import coverage

        def give_up(signum: int, frame: Optional[FrameType]) -> None:
            pytest.fail("takes too long")

        signal.signal(signal.SIGPROF, give_up)
        self.coverage = coverage.Coverage(data_file=None, include=[f"{PACKAGE / room}/*" for room in ROOMS])
        self.coverage.start()
        failed = set(self.run(tests))
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.coverage.stop()
        users: dict[str, list[str]] = defaultdict(list)
        costs = self.costs.copy()
        for test in tests:
            if test.nodeid not in failed:
                indices = getattr(getattr(test, "callspec", None), "indices", {})
                needed = [f"{name} {indices.get(name, 0)}" for name in getattr(test, "fixturenames", ())]
                for name in (test.nodeid, *needed):
                    users[name].append(test.nodeid)
                costs[test.nodeid] += sum(self.costs.get(name, 0) for name in needed)
        lines = {mutant.path: self.coverage.get_data().contexts_by_lineno(str(mutant.path)) for mutant in self.mutants}
        covering = {}
        for mutant in self.mutants:
            names = {name for line in mutant.lines for name in lines[mutant.path].get(line, ())}
            covering[mutant.key] = {test: round(costs[test], 3) for name in names for test in users[name]}
        return {key: tests for key, tests in covering.items() if tests}

    def forked(self, work: Callable[[], Any], seconds: float) -> Any:
        """Return the result of `work` in a child, by JSON; None if the child takes too long or dies."""
        answer = self.folder / "answer.json"
        child = os.fork()
        if not child:
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
                resource.setrlimit(resource.RLIMIT_DATA, (CHILD_BYTES, CHILD_BYTES))
                answer.write_text(json.dumps(work()))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        ended, waited = False, 0.0
        # Limits are in seconds of a core, so that a busy machine ends no child; a child that only waits is ended, too.
        while not ended and waited < WAIT_SECONDS:
            time.sleep(0.05)
            states = [path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{child}/task").glob("*/stat")]
            waited += 0.05 * ("R" not in states)
            ended = os.waitpid(child, os.WNOHANG)[0] != 0
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not ended:
            os.waitpid(child, 0)
        result = json.loads(answer.read_text()) if ended and answer.exists() else None
        for path in self.folder.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return result

    def mutate(self, mutant: Mutant) -> bool:
        """Give the living functions the mutant's code; return False if it is the code that they have."""
        path, tree = str(mutant.path), ast.parse(mutant.path.read_text())
        old = compile(tree, path, "exec", dont_inherit=True)
        node, field, value, *_ = next(itertools.islice(walk(tree), mutant.place, None))
        setattr(node, field, value)
        new = compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
        codes_of = {(code.co_name, code.co_firstlineno): code for code in codes(new)}
        changed = False
        for code in codes(old):
            replacement = codes_of.get((code.co_name, code.co_firstlineno), code)
            for function in self.functions[path, code.co_name, code.co_firstlineno] if replacement != code else ():
                if function.__code__ == code:
                    function.__code__ = replacement
                    changed = True
        return changed

    def judge(self, mutant: Mutant, items: dict[str, pytest.Item]) -> tuple[str, str]:
        """Return a mutant's state, and the test that killed it."""
        costs: dict[str, float] = {}
        for covering in self.record["files"].values():
            costs.update(covering.get(mutant.key, {}))
        while True:
            names = sorted(
                (name for name in costs if name in items and self.sound.get(name, True)), key=costs.__getitem__
            )
            spent = itertools.accumulate(costs[name] for name in names[1:MUTANT_TESTS])
            names = names[: 1 + sum(seconds < MUTANT_SECONDS for seconds in spent)]
            if not names:
                return "uncovered", ""
            tests = [items[name] for name in names]
            seconds = 10 + 5 * sum(costs[name] for name in names)
            failed = self.forked(partial(self.run, tests, mutant), seconds)
            if not failed or failed == ["same"]:
                return ("timeout" if failed is None else "same" if failed else "survived"), ""
            if failed[0] not in self.sound:
                self.sound[failed[0]] = self.forked(partial(self.run, [items[failed[0]]]), seconds) == []
            if self.sound[failed[0]]:
                return "killed", failed[0]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Optional[bool]:
        if session.testsfailed:
            return None  # pytest reports the errors of the collection
        mutated = (".".join(m.path.relative_to(PACKAGE.parent).with_suffix("").parts) for m in self.mutants)
        for name in (*PRELOADED, *mutated):
            importlib.import_module(name)
        gc.collect()
        for function in gc.get_objects():
            if isinstance(function, FunctionType):
                code = function.__code__
                self.functions[code.co_filename, code.co_name, code.co_firstlineno].append(function)
        gc.freeze()  # children would copy the memory that they collect
        files: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            files[item.nodeid.partition("::")[0]].append(item)
        for name, items in files.items():
            if name not in self.record["files"]:
                covering = self.forked(partial(self.map, items), FILE_SECONDS) or {}
                self.save("files", name, covering, f"{len(items)} tests, {len(covering)} mutants")
        items_by_name = {item.nodeid: item for item in session.items}
        for mutant in self.mutants:
            if mutant.key not in self.record["states"]:
                state = self.judge(mutant, items_by_name)
                self.save("states", mutant.key, state, " ".join(state))
        return True

    def save(self, part: str, key: str, value: object, text: str) -> None:
        self.record[part][key] = value
        written = self.options.out.with_suffix(".part")
        written.write_text(json.dumps(self.record, ensure_ascii=False, indent=0))
        written.replace(self.options.out)
        print(time.strftime("%X"), key[:120].replace("\n", " "), text, flush=True)


def show(mutants: list[Mutant], states: dict[str, list[str]], before: dict[str, list[str]]) -> None:
    """Print a line for each room, then the mutants that no test noticed."""
    mutants = [mutant for mutant in mutants if mutant.key in states]
    print(f"{'room':14}" + "".join(f"{state:>11}" for state in STATES) + "  killed of all, of covered")
    for room in (*ROOMS, ""):
        counts = Counter(states[mutant.key][0] for mutant in mutants if room in ("", mutant.room))
        killed, drawn = counts["killed"] + counts["timeout"], sum(counts[state] for state in STATES)
        shares = f"  {killed / max(1, drawn):.3f} {killed / max(1, drawn - counts['uncovered']):.3f}"
        print(f"{room or 'all':14}" + "".join(f"{counts[state]:11}" for state in STATES) + shares)
    for mutant in mutants:
        state, *_ = states[mutant.key]
        if state in ("survived", "uncovered"):
            was = before.get(mutant.key, [""])[0]
            print(state, was and f"(before: {was})", f"{mutant.path}:{mutant.lines.start}", repr(mutant.key[:200]))


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Count the small defects in the package that the tests notice")
    parser.add_argument("--number", type=int, default=300, help="mutants (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="which mutants (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="results; a run that was stopped goes on")
    parser.add_argument("--before", type=Path, help="results of another commit to compare with")
    options = parser.parse_args(argv)
    mutants = draw(options.seed, options.number)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        judge = Judge(options, mutants, Path(folder))
        arguments = ["-qq", "-p", "no:cacheprovider", "--hypothesis-profile=ci", f"--basetemp={folder}/tests"]
        status = pytest.main([*arguments, "-m", MARKS, *(f"tests/{name}" for name in TESTS)], plugins=[judge])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
        before = json.loads(options.before.read_text())["states"] if options.before else {}
        show(mutants, judge.record["states"], before)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
