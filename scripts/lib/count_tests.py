"""Counts tests in CTest's LastTest.log: each case of a GoogleTest program and of pytest, and each other test as one. Prints
"PASSED FAILED"."""
import re
import sys

passed = failed = 0
for block in re.split(r"^-{58}$\n(?=Test time)|^\d+/\d+ Testing: ", open(sys.argv[1], errors="replace").read(), flags=re.M)[1:]:
    ending = re.search(r"^Test (Passed|Failed)\.|^Test timeout|^Test not run", block, flags=re.M | re.I)
    if not block.strip() or "Command:" not in block:
        continue
    program_passed = bool(re.search(r"^Test Passed\.", block, flags=re.M))
    good = sum(int(n) for n in re.findall(r"^\[  PASSED  \] (\d+) tests?\.", block, flags=re.M))
    bad = sum(int(n) for n in re.findall(r"^\[  FAILED  \] (\d+) tests?, listed below", block, flags=re.M))
    for number, outcome in re.findall(r"(\d+) (passed|failed|error)", "".join(re.findall(r"^.*\bin \d+\.\d+s\b.*$", block, flags=re.M))):
        good, bad = (good + int(number), bad) if outcome == "passed" else (good, bad + int(number))
    passed += good if good or bad or not program_passed else 1
    failed += 0 if program_passed else max(bad, 1)  # a crash or a timeout is at least one
print(passed, failed)
