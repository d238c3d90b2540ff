"""Reads `go test -json` events: prints what a person wants to see and appends "passed failed skipped" to a file."""

import collections
import json
import sys


def main(counts_path):
    output = collections.defaultdict(list)
    counts = collections.Counter()
    failed_tests = collections.Counter()  # by package
    skipped = []
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="")  # the go command's own words
            continue
        action, package, test = event.get("Action"), event.get("Package"), event.get("Test")
        key = (package or event.get("ImportPath"), test)
        if action in ("output", "build-output"):
            output[key].append(event["Output"])
        elif action in ("pass", "fail", "skip") and test:
            counts[action] += 1
            text = "".join(output.pop(key, []))
            if action == "fail":
                failed_tests[package] += 1
                print(f"--- FAIL: {package} {test}\n{text}", flush=True)
            elif action == "skip":
                skipped.append((package, test, text))
        elif action in ("pass", "fail", "skip"):
            text = "".join(output.pop(key, []))
            if action == "fail":
                # Without a failed test of its own it did not build, panicked, leaked, or ran out of time.
                if not failed_tests[package]:
                    counts["fail"] += 1
                    unfinished = "".join("".join(t) for (p, _), t in output.items() if p == package)
                    broken = "".join(output.pop((event.get("FailedBuild"), None), []))
                    print(broken + unfinished[-20000:] + text[-20000:])
                print(f"FAIL {package} {event.get('Elapsed', 0):.1f}s", flush=True)
            elif action == "pass":
                print(f"ok   {package} {event.get('Elapsed', 0):.1f}s", flush=True)
    for package, test, text in skipped:
        reason = " ".join(line.strip() for line in text.splitlines() if not line.startswith(("=== ", "---")) and not line.strip().startswith("--- "))
        print(f"skip {package} {test}: {reason}")
    with open(counts_path, "a") as file:
        print(counts["pass"], counts["fail"], counts["skip"], file=file)
    return 1 if counts["fail"] else 0


sys.exit(main(sys.argv[1]))
