"""Builds what can be installed without a compiler: target/package/curfew-VERSION-ARCH/, as infra/INSTALL.md explains it.

    package.py CARGO_CYCLONEDX

From the same commit, compiler and zlib come the same bytes: nothing in it tells the time, the machine or its folders.
infra/parameters.yaml gives the template its defaults, infra/events what its schedules carry.
"""

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import stack
import yaml
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform
from stack import ROOT, TARGET, TEMPLATE, Wrong

TRIPLES = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
# Names of files with which a crate says its licence, in capitals.
TEXTS = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def package(cyclonedx: Path) -> Path:
    architecture = stack.architecture_of(stack.BUILT)
    name = f"curfew-{stack.version()}-{architecture}"
    folder = TARGET / "package" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    zip_function(folder / f"{name}.zip")
    template = plain(stack.parameters(), architecture, f"{name}.zip")
    (folder / "curfew.yaml").write_text(yaml.safe_dump(template, sort_keys=False, allow_unicode=True, width=120))
    crates = crates_of(TRIPLES[architecture])
    (folder / "curfew.cdx.json").write_text(bill_of_materials(cyclonedx, TRIPLES[architecture], crates))
    (folder / "LICENSES.txt").write_text(licences(TRIPLES[architecture], crates))
    filled = {"VERSION": stack.version(), "ARCH": architecture, "COMMIT": commit(), "COMPILER": compiler()}
    page = re.sub(rf"\b({'|'.join(filled)})\b", lambda it: filled[it[1]], (ROOT / "infra/INSTALL.md").read_text())
    (folder / "INSTALL.md").write_text(page)
    files = sorted(folder.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def zip_function(path: Path) -> None:
    """Zips the function again, because cargo-lambda's zip tells when it was built."""
    with zipfile.ZipFile(stack.BUILT) as built:
        binary = built.read("bootstrap")
    # The earliest time that a zip can tell.
    it = zipfile.ZipInfo("bootstrap", date_time=(1980, 1, 1, 0, 0, 0))
    it.create_system, it.external_attr = 3, 0o100755 << 16
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(it, binary, zipfile.ZIP_DEFLATED, compresslevel=9)


# ---- The template -------------------------------------------------------------------------------------------------


def plain(values: dict[str, str], architecture: str, zipped: str) -> dict:
    """The template as CloudFormation alone understands it, with the zip in a bucket and no tool to fill it in."""
    template = yaml_parse(stack.render(TEMPLATE, values))
    declared = template["Parameters"]
    for key, it in declared.items():
        it["Default"] = values[key]
    # However it was packaged, it begins as a rehearsal.
    declared["Live"]["Default"] = declared["Paused"]["Default"] = "no"
    declared["Architecture"] |= {"Default": architecture, "AllowedValues": [architecture]}
    declared["Architecture"]["ConstraintDescription"] = f"this package is built for {architecture}"
    declared["CodeBucket"] = {
        "Description": f"The bucket that {zipped} lies in, in the region of the stack",
        "Type": "String",
        "AllowedPattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        "ConstraintDescription": "write the name of a bucket, without s3://",
    }
    declared["CodeKey"] = {"Description": "The zip's key in that bucket", "Type": "String", "Default": zipped}
    functions = [name for name, it in template["Resources"].items() if it["Type"] == "AWS::Serverless::Function"]
    for name in functions:
        template["Resources"][name]["Properties"]["CodeUri"] = {"Bucket": {"Ref": "CodeBucket"}, "Key": {"Ref": "CodeKey"}}
    follow_parameters(template, values)
    # SAM asks boto3 for a region, and leaves nothing of it in the template.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    translated = transform(copy.deepcopy(template), {}, ManagedPolicyLoader(None))
    for name in functions:
        del translated["Resources"][name]["Properties"]["Tags"]  # "created by SAM"
    # In the order in which a person has written it.
    order = lambda it, given: {key: it[key] for key in [*given, *it] if key in it}  # noqa: E731
    translated["Resources"] = order(translated["Resources"], template["Resources"])
    return json.loads(json.dumps(order(translated, template)))


def follow_parameters(template: dict, values: dict[str, str]) -> None:
    """Makes what was put in for these values right for other ones, too: who installs a package has no stack.py."""
    key, _, value = values["ManagedTag"].partition("=")
    tag = {which: {"Fn::Select": [at, {"Fn::Split": ["=", {"Ref": "ManagedTag"}]}]} for at, which in enumerate(("TagKey", "TagValue"))}

    def select(it: object) -> None:
        if isinstance(it, dict) and "Fn::Sub" in it:
            text, filled = it["Fn::Sub"] if isinstance(it["Fn::Sub"], list) else (it["Fn::Sub"], {})
            if f'"{key}":"{value}"' in text:
                it["Fn::Sub"] = [text.replace(f'"{key}":"{value}"', '"${TagKey}":"${TagValue}"'), filled | tag]
        for child in it.values() if isinstance(it, dict) else it if isinstance(it, list) else ():
            select(child)

    select(template["Resources"])
    for name, it in yaml_parse(TEMPLATE.read_text())["Resources"].items():
        what, _, schedule = str(it["Properties"].get("EvaluationPeriods")).rpartition(" of ")
        # One that is packaged as "off" has what any other schedule needs.
        if what == "@silence" and values[schedule] != "off":
            template["Conditions"][f"{schedule}AsPackaged"] = {"Fn::Equals": [{"Ref": schedule}, values[schedule]]}
            # What a schedule that leaves out days needs, since CloudFormation can't tell whether another one does.
            bears = {"Fn::If": [f"{schedule}AsPackaged", stack.silence(values[schedule]), stack.silence("")]}
            template["Resources"][name]["Properties"]["EvaluationPeriods"] = bears


# ---- What it consists of ------------------------------------------------------------------------------------------


def said_by(*command: str | Path, **env: str) -> str:
    try:
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    except OSError as error:
        raise Wrong(f"{command[0]}: {error.strerror}") from error
    if ended.returncode:
        raise Wrong(f"{' '.join(map(str, command))}: {ended.stderr.strip()}")
    return ended.stdout.strip()


def commit() -> str:
    return said_by_git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "(unknown: not built from a Git checkout)"


def said_by_git(*arguments: str) -> str:
    """Returns what Git says, or nothing in an unpacked archive of the sources."""
    try:
        return said_by("git", *arguments)
    except Wrong:
        return ""


def compiler() -> str:
    return said_by("rustc", "--version")


def crates_of(triple: str) -> set[tuple[str, str]]:
    """Name and version of each crate that the function is compiled from; not what only builds, tests or ec2-sim need."""
    tree = said_by(
        "cargo", "tree", "--locked", "--package=ec2-curfew", "--edges=normal", f"--target={triple}", "--prefix=none", "--format={p}"
    )
    return {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, tree.splitlines())}


def bill_of_materials(cyclonedx: Path, triple: str, crates: set[tuple[str, str]]) -> str:
    """The SBOM by cargo-cyclonedx, but for crates that others of the workspace ask for, and the path of this checkout."""
    name = "curfew.cdx"
    written = [Path(it["manifest_path"]).with_name(f"{name}.json") for it in metadata(triple)["packages"] if it["source"] is None]
    try:
        said_by(
            cyclonedx, "cyclonedx", "--format=json", "--spec-version=1.5", f"--target={triple}", f"--override-filename={name}",
            SOURCE_DATE_EPOCH=said_by_git("log", "-1", "--format=%ct") or "0",
        )  # fmt: skip
        text = (ROOT / f"{name}.json").read_text()
    finally:
        for path in written:
            path.unlink(missing_ok=True)
    bill = json.loads(text.replace(f"path+{ROOT.as_uri()}#", "").replace("?download_url=file://.", ""))
    bill["components"] = [it for it in bill["components"] if (it["name"], it["version"]) in crates]
    own = bill["metadata"]["component"]
    if missing := crates - {(it["name"], it["version"]) for it in [own, *bill["components"]]}:
        raise Wrong(f"cargo-cyclonedx leaves out {', '.join(map(' '.join, sorted(missing)))}")
    known = {it["bom-ref"] for it in [own, *bill["components"]]}
    bill["dependencies"] = [
        it | {"dependsOn": [ref for ref in it.get("dependsOn", []) if ref in known]} for it in bill["dependencies"] if it["ref"] in known
    ]
    return json.dumps(bill, indent=2, ensure_ascii=False) + "\n"


def licences(triple: str, crates: set[tuple[str, str]]) -> str:
    """Each crate with its licence, then the texts that come with them, each once."""
    listed, carriers = [], {}
    for it in sorted(metadata(triple)["packages"], key=lambda it: (it["name"], it["version"])):
        if (it["name"], it["version"]) not in crates:
            continue
        crate = f"{it['name']} {it['version']}"
        listed.append(f"{crate:40} {it['license'] or it['license_file']}\n")
        for path in sorted(Path(it["manifest_path"]).parent.iterdir()):
            if path.name.upper().startswith(TEXTS) and path.is_file():
                carriers.setdefault(path.read_text(errors="replace").strip(), []).append(crate)
    std = f"Rust's standard library, of {compiler()}, is under MIT OR Apache-2.0.\n"
    texts = [f"\n{'-' * 80}\n{', '.join(dict.fromkeys(names))}\n\n{text}\n" for text, names in carriers.items()]
    return f"The function consists of these crates.\n\n{''.join(listed)}\n{std}{''.join(texts)}"


def metadata(triple: str) -> dict:
    return json.loads(said_by("cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={triple}"))


if __name__ == "__main__":
    try:
        print(package(Path(sys.argv[1])))
    except Wrong as error:
        sys.exit(f"error: {error}")
