"""What checks run in: time limits, a learner's own state, the record of passes, C that dies."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from onebit.__main__ import main
from onebit.checks import CheckFailed, check, hint, isolated, judge, logbook, progress
from onebit.checks.judge import TooLong, judge_file, time_limit
from onebit.checks.places import exercises_folder, handed_in
from onebit.checks.registry import exercises, find

TASKS = [id for exercise in exercises() for id in exercise.tasks]
STUB = "exercise_04_binary_linear.py"


def right(x, w):
    return x @ torch.where(w >= 0, 1.0, -1.0).to(x.dtype).T


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Learn in a folder of the test's own."""
    monkeypatch.setenv("ONEBIT_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def quick(monkeypatch):
    """Allow a check a second."""
    for id in ("04.1", "04.2"):
        monkeypatch.setattr(find(id)[1], "seconds", 1.0)


def told(id, *answers):
    """Return what is said of a wrong answer, in one line."""
    with pytest.raises(CheckFailed) as caught:
        check(id, *answers)
    return " ".join(str(caught.value).split())


def written(folder, source):
    """Return what is said of a file with this source, handed in for 04.1."""
    path = folder / STUB
    path.write_text(source, encoding="utf-8")
    with pytest.raises(CheckFailed) as caught:
        judge_file(find("04.1")[1], path)
    return " ".join(str(caught.value).split())


# ---- the time limit ---------------------------------------------------------------------------


def test_an_endless_loop_is_stopped_and_told_with_its_line_and_input(quick, tmp_path):
    said = written(tmp_path, "def binary_linear(x, w):\n    while True:\n        x = x + 0\n")
    assert "input x = [[2]], w = [[-0.3]]" in said
    assert "expected an answer within 1 s" in said
    assert "A loop whose condition never becomes false" in said
    assert f"got none yet, at {STUB}, line " in said
    assert "line 3: x = x + 0" in said or "line 2: while True:" in said


def test_a_file_that_never_ends_loading_is_told_as_such(quick, tmp_path):
    said = written(tmp_path, "while True:\n    pass\n")
    assert f"{STUB} runs, and defines binary_linear." in said
    assert "A loop whose condition never becomes false" in said


def state():
    return (
        torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(),
        torch.random.get_rng_state().tolist(), signal.getsignal(signal.SIGALRM), sys.gettrace(),
    )  # fmt: skip


def endless_without_gradients(x, w):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    with torch.no_grad():
        while True:
            x = x + torch.randn(1)


def raises(x, w):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.manual_seed(5)
    raise ZeroDivisionError


@pytest.mark.parametrize("answer", [endless_without_gradients, raises])
def test_the_state_of_the_learners_session_is_as_before(quick, answer):
    before = state()
    told("04.1", answer)
    assert state() == before


def test_a_check_that_passes_leaves_the_state_as_it_was():
    before = state()
    check("04.1", right)
    assert state() == before


@pytest.mark.parametrize("before", [torch.float64, torch.bfloat16])
def test_checks_run_alike_under_another_default_dtype_and_without_gradients(before):
    torch.set_default_dtype(before)
    try:
        with torch.no_grad():
            check("04.1", right)
            check("04.2", Straight)
        assert torch.get_default_dtype() == before
    finally:
        torch.set_default_dtype(torch.float32)


class Straight(torch.autograd.Function):
    """The answer to 04.2."""

    @staticmethod
    def forward(ctx, w, clip_value):
        ctx.inside = None if clip_value is None else w.abs() <= clip_value
        return torch.where(w >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        return grad if ctx.inside is None else grad * ctx.inside, None


def catches_exceptions(x, w):
    while True:
        try:
            x = torch.relu(x)
        except Exception:
            continue


LARGE = torch.ones(400, 400)  # so that a signal comes in a call of torch.mm, inside the try


def catches_everything(x, w):
    while True:
        try:
            x = torch.mm(LARGE, LARGE)
        except:  # noqa: E722
            x = x + 0


def catches_everything_below(x, w):
    def step():
        try:
            return torch.mm(LARGE, LARGE)
        except:  # noqa: E722
            return x

    while True:
        x = step()


def closes_slowly(x, w):
    try:
        while True:
            x = torch.relu(x)
    finally:
        for _ in range(3):
            x = x + 1


@pytest.mark.parametrize(
    "answer", [catches_exceptions, catches_everything, catches_everything_below, closes_slowly]
)
def test_no_except_of_the_learners_swallows_the_limit(quick, answer):
    before = state()
    assert "A loop whose condition never becomes false" in told("04.1", answer)
    assert state() == before


def test_code_that_waits_for_ever_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 2)
    with pytest.raises(TooLong), time_limit(0.1):
        threading.Event().wait()


def test_an_alarm_that_was_set_before_is_set_again():
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    signal.setitimer(signal.ITIMER_REAL, 3600)
    try:
        check("04.1", right)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        assert not rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_what_is_quick_enough_leaves_no_alarm_behind():
    with time_limit(3600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_there_is_no_limit_and_checks_work(capsys):
    came = []

    def learn():
        with time_limit(1e-6):
            came.append(sum(range(100_000)))
        check("04.1", right)
        came.append(told("04.1", raises))

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert came[0] == 4_999_950_000
    assert "ZeroDivisionError" in came[1]
    assert "04.1 passed" in capsys.readouterr().out


# ---- what a learner's code raises and returns --------------------------------------------------


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x, w: None, "Nothing came: is a return missing?"),
        (lambda x, w: right(x, w).tolist(), "A tensor has to come, not a list."),
        (lambda x, w: right(x, w).numpy(), "A tensor has to come, not a NumPy array."),
        (lambda x, w: right(x, w)[0], "The shape has to be (1, 1), and is (1,)"),
        (lambda x, w: right(x, w).double(), "The dtype has to be torch.float32"),
        (lambda x, w: 2, "A tensor has to come, not a int."),
        (lambda x: x, "TypeError"),
        (None, "TypeError: 'NoneType' object is not callable"),
        ("binary_linear", "TypeError: 'str' object is not callable"),
        (np.zeros(3), "TypeError"),
    ],
)
def test_a_wrong_type_is_told_as_such(answer, words):
    said = told("04.1", answer)
    assert words in said
    assert "next step python -m onebit hint 04.1" in said


@pytest.mark.parametrize(
    "source, words",
    [
        ("import sys\ndef binary_linear(x, w):\n    sys.exit(3)\n",
         f"SystemExit: 3 likely cause Raised at {STUB}, line 3: sys.exit(3)"),
        ("exit()\n", f"SystemExit: None likely cause Raised at {STUB}, line 1: exit()"),
        ("def binary_linear(x, w)\n    return x\n",
         f"Raised at {STUB}, line 1: def binary_linear(x, w)"),
        ("import nothing_of_that_name\n",
         f"Raised at {STUB}, line 1: import nothing_of_that_name"),
        ("def binary_linear(x, w):\n    return binary_linear(x, w)\n", "RecursionError"),
        ("def linear(x, w):\n    return x\n", "nothing so named"),
        ("def binary_linear(x, w):\n    return torch.sign(w)\n", "NameError: name 'torch'"),
        ("raise MemoryError('all gone')\n", "MemoryError: all gone"),
    ],
)  # fmt: skip
def test_whatever_a_file_raises_is_told_with_its_line(tmp_path, source, words):
    assert words in written(tmp_path, source)


def test_a_keyboard_interrupt_is_the_learners_own_and_passes():
    before = state()

    def interrupted(x, w):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("04.1", interrupted)
    assert state() == before


def test_too_long_is_none_of_the_exceptions_that_learners_catch():
    assert not issubclass(TooLong, Exception)


def test_as_many_answers_are_asked_for_as_the_task_names():
    with pytest.raises(TypeError, match=r"check\('04.3', BinaryLinear, clip_latent\) is how"):
        check("04.3", right)


@pytest.mark.parametrize(
    "id, cure",
    [
        ("4.2", 'did you mean "04.2"? There are ch01.1 to ch01.'),
        (4.2, 'did you mean "04.2"? There are'),
        ("CH04.2 ", 'did you mean "ch04.2"?'),
        ("04.9", "there are ch01.1 to ch01."),
        ("ch9.1", "04.1 to 04.6"),
        (3, 'an id is a text, such as "04.2"'),
        (["04.2"], "an id is a text"),
        (None, "an id is a text"),
    ],
)
def test_an_unknown_task_is_refused_with_those_there_are(id, cure):
    for ask in (check, hint):
        with pytest.raises(ValueError) as caught:
            ask(id)
        assert f"no task {id!r}: " in str(caught.value)
        assert cure in str(caught.value)


# ---- what was passed ---------------------------------------------------------------------------


def test_a_pass_is_recorded_once_and_a_failure_never(work, capsys):
    told("04.1", lambda x, w: x)
    assert not work.exists()
    check("04.1", right)
    check("04.1", right)
    lines = (work / "progress.jsonl").read_text().splitlines()
    assert [(e["task"], e["what"]) for e in map(json.loads, lines)] == [("04.1", "passed")]
    assert "04.1 passed: Signs in the product (5 checks). Next: 04.2," in capsys.readouterr().out


DAMAGE = {
    "a line cut off": b'{"task": "04.2", "what": "pas',
    "another program's file": b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
    "other JSON": b'[1, 2]\n"04.2"\n{"task": 3, "what": "passed"}\n{"what": "passed"}\nnull\n',
    "brackets without end": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_keeps_what_it_holds_and_is_told(work, damage, capsys):
    check("04.1", right)
    path = work / "progress.jsonl"
    before = path.read_bytes() + damage
    path.write_bytes(before)
    check("04.2", Straight)
    assert path.read_bytes().startswith(before)
    assert logbook.passed() == {"04.1", "04.2"}
    for said in (str(progress()), progress()._repr_html_()):
        assert f"of {path} cannot be read and w" in said
        assert "left as" in said
    assert main(["progress"]) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_a_damaged_line_is_counted_in_words(work):
    work.mkdir()
    path = work / "progress.jsonl"
    path.write_text("one\n")
    assert f"1 line of {path} cannot be read and was left as it is." in str(progress())
    path.write_text("one\n\ntwo\n")
    assert f"2 lines of {path} cannot be read and were left as they are." in str(progress())


@pytest.mark.parametrize("kind", ["a file for a folder", "a folder for the file"])
def test_what_cannot_be_written_is_told_and_not_fatal(work, kind, capsys):
    if kind == "a file for a folder":
        work.write_text("not a folder")
    else:
        (work / "progress.jsonl").mkdir(parents=True)
    check("04.1", right)
    said = capsys.readouterr().out
    assert "04.1 passed" in said
    assert "not recorded in " in said and "set ONEBIT_WORK to another folder" in said
    hint("04.1")
    said = capsys.readouterr().out
    assert "hint 1 of 3" in said and "not recorded in" in said
    assert "cannot be read" in str(progress()) and "set ONEBIT_WORK" in str(progress())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(work, capsys):
    work.mkdir()
    work.chmod(0o500)
    check("04.1", right)
    assert "not recorded in" in capsys.readouterr().out


def record_many(name, start):
    start.wait()
    for n in range(200):
        assert logbook.record(f"{name}.{n}", "passed") is None


def test_two_processes_that_write_at_once_lose_nothing(work):
    forking = multiprocessing.get_context("fork")
    start = forking.Event()
    writers = [forking.Process(target=record_many, args=(name, start)) for name in "ab"]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    entries, unreadable = logbook.records()
    assert len(entries) == 400 and not unreadable  # a blank line between two does no harm
    assert logbook.passed() == {f"{name}.{n}" for name in "ab" for n in range(200)}


def cells(html):
    return html.count("<td>passed</td>"), html.count("<td>open</td>")


def test_progress_shows_none_some_and_all_in_a_notebook_and_a_terminal(work, capsys):
    def shown():
        assert main(["progress"]) == 0
        said = capsys.readouterr().out
        assert said == f"{progress()}\n" == f"{progress()!r}\n"
        assert (said.count("[x]"), said.count("[ ]")) == cells(progress()._repr_html_())
        return said

    assert "exercise_04_binary_linear: 0 of 6 passed" in shown()
    assert cells(progress()._repr_html_()) == (0, len(TASKS))
    check("04.1", right)
    logbook.record("of another course", "passed")
    capsys.readouterr()
    said = shown()
    assert (
        "exercise_04_binary_linear: 1 of 6 passed\n  [x] 04.1 Signs in the product\n  [ ]" in said
    )
    assert said.count("[x]") == 1
    for id in TASKS:
        logbook.record(id, "passed")
    said = shown()
    assert "exercise_04_binary_linear: 6 of 6 passed" in said
    assert cells(progress()._repr_html_()) == (len(TASKS), 0)


def test_the_table_of_a_notebook_has_a_caption_and_a_header_for_each_file():
    html = progress()._repr_html_()
    assert "<caption>Exercises</caption>" in html
    assert html.count('scope="rowgroup"') == len(exercises())


def test_ipython_shows_the_message_alone():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    source = 'from onebit.checks import check\ncheck("04.1", lambda x, w: x @ w.T)'
    with pytest.MonkeyPatch.context() as patch:
        shown = []
        patch.setattr(shell, "_showtraceback", lambda kind, error, lines: shown.extend(lines))
        result = shell.run_cell(source)
    assert isinstance(result.error_in_exec, CheckFailed)
    assert shown == str(result.error_in_exec).splitlines()
    assert shown[0] == "04.1 Signs in the product: not right yet"


def test_hints_come_one_more_each_time_and_then_name_the_solution(capsys):
    for said in ("hint 1 of 3", "hint 2 of 3", "hint 3 of 3", "these were all the hints"):
        assert main(["hint", "04.2"]) == 0
        assert said in capsys.readouterr().out
    assert main(["hint", "4.2"]) == 2
    assert 'did you mean "04.2"?' in capsys.readouterr().err


# ---- where answers are ---------------------------------------------------------------------------


@pytest.mark.parametrize("present, missing", [(".c", ".py"), (".py", ".c")])
def test_of_an_exercise_in_two_files_the_missing_one_is_told(work, present, missing):
    work.mkdir()
    name = "chapter_04_xnor_kernel"
    shutil.copy(exercises_folder() / "solutions" / f"{name}{present}", work)
    with pytest.raises(CheckFailed) as caught:
        judge_file(find("ch04.1")[1], handed_in(name))
    said = " ".join(str(caught.value).split())
    assert f"expected a file {name}{missing} got none in {work}" in said
    assert caught.value.check == "load"


def test_what_was_not_handed_in_counts_as_the_stub(work):
    assert handed_in("chapter_02_bit_packing") == exercises_folder() / "chapter_02_bit_packing.py"
    work.mkdir()
    (work / "chapter_02_bit_packing.py").write_text("")
    assert handed_in("chapter_02_bit_packing") == work / "chapter_02_bit_packing.py"


def test_copying_again_brings_what_is_missing_and_overwrites_nothing(work, capsys):
    assert main(["exercises"]) == 0
    mine, gone = work / STUB, work / "chapter_04_xnor_kernel.c"
    mine.write_text("my answer")
    gone.unlink()
    assert main(["exercises"]) == 0
    said = capsys.readouterr().out
    assert f"kept    {mine}" in said and f"copied  {gone}" in said
    assert mine.read_text() == "my answer"
    assert gone.read_bytes() == (exercises_folder() / gone.name).read_bytes()


@pytest.mark.parametrize("active", [True, False])
def test_copying_tells_how_pytest_becomes_that_of_the_course(monkeypatch, tmp_path, capsys, active):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path) if active else "/another")
    assert main(["exercises"]) == 0
    said = capsys.readouterr().out
    assert (f"First `source {tmp_path}/bin/activate`" in said) is not active
    assert "`pytest exercises -k exercise_04` checks a file" in said


# ---- C in a process of its own -----------------------------------------------------------------

POPCOUNT = """#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int popcount(uint64_t word)
{
    BODY
}
"""
BUILTIN = POPCOUNT.replace("BODY", "return __builtin_popcountll(word);")


@pytest.fixture
def compiler():
    from onebit.compiling import NoCompilerError, compile_c

    try:
        compile_c("int one(void) { return 1; }", "int one(void)")
    except NoCompilerError as error:
        pytest.skip(str(error))


def test_c_is_taken_as_a_text_a_path_and_the_name_of_a_path(compiler, tmp_path, capfd):
    path = tmp_path / "mine.c"
    path.write_text(BUILTIN)
    for source in (BUILTIN, path, str(path)):
        check("ch04.1", source)
    assert capfd.readouterr().out.count("ch04.1 passed: Count the ones") == 3


@pytest.mark.parametrize(
    "source, words",
    [
        (Path("nowhere.c"), "expected a file nowhere.c got none in"),
        ("nowhere/popcount.c", "expected a file popcount.c got none in"),
        (None, "C as a text, or the path of its file got NoneType"),
        (right, "C as a text, or the path of its file got function"),
    ],
)
def test_what_is_no_c_is_told_without_a_compiler(source, words):
    assert words in told("ch04.1", source)


DEATHS = {
    "segmentation fault": ("return *(volatile int *)8;", "a crash: Segmentation fault"),
    "abort": ("abort();", "a crash: Aborted"),
    "double free": (
        "char *p = malloc(3000); free(p); *(char *volatile *)&p = p; free(p); return 0;",
        "free and malloc found their memory overwritten",
    ),
    "exit": ("exit(3);", "the end of the process, with status 3"),
    "silent exit": ("exit(0);", "the end of the process, with status 0"),
    "killed": ("raise(SIGTERM); return 0;", "a crash: Terminated"),
}


@pytest.mark.parametrize("body, words", DEATHS.values(), ids=DEATHS)
def test_c_that_dies_is_told_with_its_input_and_harms_nothing(compiler, body, words, capfd):
    said = told("ch04.1", POPCOUNT.replace("BODY", body))
    assert "The ones of small words are counted. input word = 0b0" in said
    assert words in said
    check("ch04.1", BUILTIN)
    assert "ch04.1 passed" in capfd.readouterr().out


@pytest.mark.parametrize(
    "body", ["for (;;) ;", 'for (;;) puts("again");'], ids=["silent", "printing"]
)
def test_an_endless_loop_in_c_is_stopped_by_its_processor_time(compiler, body, monkeypatch, capfd):
    monkeypatch.setattr(find("ch04.1")[1], "seconds", 0.1)
    said = told("ch04.1", POPCOUNT.replace("BODY", body))
    assert "got no end likely cause A loop whose condition never becomes false" in said
    assert len(capfd.readouterr().out) <= isolated.MOST_SHOWN


def test_c_that_waits_for_ever_is_stopped_by_the_clock(compiler, monkeypatch):
    monkeypatch.setattr(isolated, "PATIENCE", 3.0)
    said = told("ch04.1", POPCOUNT.replace("BODY", "for (;;) pause();"))
    assert "got no end likely cause It waits for what never comes" in said


def test_what_printf_wrote_before_a_crash_is_shown(compiler, capfd):
    body = 'printf("the word is %d\\n", (int)word); return *(volatile int *)8;'
    told("ch04.1", POPCOUNT.replace("BODY", body))
    assert capfd.readouterr().out == "the word is 0\n"


WRONG = {
    "another name": (
        BUILTIN.replace("popcount(uint64_t", "count_ones(uint64_t"),
        "a function int popcount(uint64_t word) got none of that name",
    ),
    "static": (
        BUILTIN.replace("int popcount", "static int popcount"),
        "the function is static",
    ),
    "no semicolon": (POPCOUNT.replace("BODY", "return 1"), "(line 9: return 1)"),
    "no such function": (POPCOUNT.replace("BODY", "return ones(word);"), "(line 9: return ones"),
    "a declaration alone": (
        "int ones(unsigned long word);\n" + POPCOUNT.replace("BODY", "return ones(word);"),
        "undefined symbol: ones likely cause It is declared and used, but defined nowhere",
    ),
    "no such header": ('#include "mine.h"\n' + BUILTIN, '(line 1: #include "mine.h")'),
    "nothing": ("", "got none of that name"),
}  # fmt: skip


@pytest.mark.parametrize("source, words", WRONG.values(), ids=WRONG)
def test_c_that_does_not_compile_or_load_is_told_with_its_line(compiler, source, words):
    assert words in told("ch04.1", source)


def test_without_a_compiler_the_doctor_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    said = told("ch04.1", BUILTIN)
    assert "no C compiler was found" in said
    assert "python -m onebit doctor" in said


def test_an_interrupted_check_leaves_no_answer_for_the_next(compiler, monkeypatch, capfd):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    check("ch04.1", BUILTIN)  # the process stands by now
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            check("ch04.1", POPCOUNT.replace("BODY", "for (;;) pause();"))
    finally:
        signal.signal(signal.SIGALRM, before)
    check("ch04.1", BUILTIN)
    assert capfd.readouterr().out.count("ch04.1 passed") == 2
