"""Runs the functions named `test_…` of a module, one after the other.

The closing line is `N passed, M failed`; the exit code is 1 if any failed or none ran.
"""

import traceback


def run(names):
    tests = [(name, test) for name, test in names.items() if name.startswith("test_")]
    failed = 0
    for name, test in tests:
        try:
            test()
            print(f"ok   {name[5:].replace('_', ' ')}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {name[5:].replace('_', ' ')}", flush=True)
            traceback.print_exc()
    print(f"{len(tests) - failed} passed, {failed} failed", flush=True)
    return 1 if failed or not tests else 0
