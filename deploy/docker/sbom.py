"""An image's software bill of materials, as CycloneDX on stdout: Debian's packages, Python's, and the crates in sigward's module.

Run while the image is built, by the Dockerfile. Python's part is cyclonedx-bom's work, the crates' maturin's, which puts it into the wheel (PEP 770);
Debian's packages, which neither knows, are added here.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]

FORMAT = "${db:Status-Status}\t${binary:Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def main() -> None:
    """Reads what is installed, prints the bill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="The image's.")
    parser.add_argument("--debian", type=Path, required=True, help="The folder of its dpkg's `status`.")
    parser.add_argument("--python", type=Path, required=True, help="Its virtual environment.")
    asked = parser.parse_args()
    bill = python_packages(asked.python)
    bill["metadata"]["component"] = {"type": "container", "bom-ref": asked.name, "name": asked.name}
    bill["components"] += debian_packages(asked.debian) + crates(asked.python)
    print(json.dumps(bill, indent=1))


def python_packages(environment: Path) -> dict[str, Any]:
    """A bill of a virtual environment alone."""
    command = ["cyclonedx-py", "environment", "--spec-version", "1.6", "--output-reproducible", str(environment / "bin" / "python")]
    told: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return told


def debian_packages(status: Path) -> list[Component]:
    """A component for each installed package. See "deb" in the package URL types."""
    command = ["dpkg-query", "--admindir", str(status), "--show", "--showformat", FORMAT]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = []
    for state, package, version, architecture, source in (line.split("\t") for line in lines):
        name = package.partition(":")[0]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=trixie"
        if state == "installed":
            origin = [{"name": "debian:source", "value": source}]
            found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "properties": origin})
    return found


def crates(environment: Path) -> list[Component]:
    """What the bills in the installed wheels name."""
    found: dict[str, Component] = {}
    for file in sorted(environment.glob("lib/python3*/site-packages/*.dist-info/sboms/*.cyclonedx.json")):
        for component in json.loads(file.read_text())["components"]:
            # References into a bill of its own say nothing in this one, and hold the paths of whoever compiled it.
            component["bom-ref"] = f"crate:{component['name']}@{component['version']}"
            component.pop("components", None)
            found[component["bom-ref"]] = component
    return list(found.values())


if __name__ == "__main__":
    main()
