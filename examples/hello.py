#!/usr/bin/python3
"""Says who runs it, where, and on what."""

import getpass
import os
import platform
import sys


def main():
    name = " ".join(sys.argv[1:]) or getpass.getuser()
    system = "unknown system"
    with open("/etc/os-release", encoding="utf-8") as release:
        for line in release:
            if line.startswith("PRETTY_NAME="):
                system = line.split("=", 1)[1].strip().strip('"')
    print(f"Hello {name}, uid {os.getuid()}, from Python {platform.python_version()} on {system}.")


if __name__ == "__main__":
    main()
