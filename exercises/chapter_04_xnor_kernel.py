"""Exercises of chapter 4: your own kernel of XNOR and popcount, in C.

Six tasks, a little over two hours; the chapter "The XNOR–popcount trick in detail" tells the story
to them, from "One word, by hand" to "What happens to the sum". You write C, in the file
chapter_04_xnor_kernel.c beside this one. `make exercises` copies both to exercises/work: write in
the copy of the .c, in place of each NOT_WRITTEN_YET, and leave this file as it is. The checks
compile what you wrote, call it through cffi and try it in a process of its own: a crash or an
endless loop is told like any other mistake, and harms nothing.

    pytest exercises -k chapter_04         check all, or -k ch04.2 for one task
    python -m onebit hint ch04.2           one hint, and one more each time
    check("ch04.2", source)                a text of C, in a notebook; check is in onebit.checks

You need a C compiler: `python -m onebit doctor` says whether there is one.
"""

from pathlib import Path

#: The C source that holds all six functions.
kernel = Path(__file__).with_suffix(".c")
