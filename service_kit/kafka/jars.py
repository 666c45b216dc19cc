"""Apache Kafka's jars, fetched once through Maven into a cache, and the Java to run them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service_kit.kafka.errors import NoRealKafka

JAVA_VERSION_MIN = 17
FETCH_S_MAX = 300.0

_POM = Path(__file__).parent / "maven" / "pom.xml"
# Maven resets the terminal's colour even when told to use none.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_VERSION = re.compile(r'version "(\d+)')


def find_java(env: Mapping[str, str] = os.environ) -> str:
    """The path of a Java 17 or newer: JAVA_HOME's, else the PATH's."""
    home = env.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates.append("java")
    reasons = []
    for candidate in candidates:
        path = shutil.which(candidate, path=env.get("PATH"))
        if path is None:
            reasons.append(f"no {candidate}")
            continue
        version = _java_version(path)
        if version >= JAVA_VERSION_MIN:
            return path
        reasons.append(f"{path} is version {version or 'unknown'}")
    raise NoRealKafka(f"Java {JAVA_VERSION_MIN} or newer is needed: {', '.join(reasons)}")


def kafka_classpath(env: Mapping[str, str] = os.environ) -> str:
    """The class path of Apache Kafka; fetches the jars through `mvn` when the cache has none."""
    cache = _cache_folder(env)
    # A changed pom is another folder, so an old cache is never mixed with a new version.
    jars = cache / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    if not jars.is_dir():
        with _locked(cache / "lock"):
            if not jars.is_dir():
                _fetch(jars, env)
    return str(jars / "*")


def _java_version(path: str) -> int:
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(done.stderr + done.stdout)
    return int(found.group(1)) if found else 0


def _cache_folder(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_CACHE_HOME")
    user = Path(base) if base else Path.home() / ".cache"
    in_repository = Path(__file__).parents[2] / ".kafka"
    for folder in (user / "gpu-risk", in_repository):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise NoRealKafka(f"neither {user} nor {in_repository.parent} can be written to for Kafka's jars")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it goes with the process that holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(jars: Path, env: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=env.get("PATH"))
    if maven is None:
        raise NoRealKafka("Maven (mvn) is not installed, and Kafka's jars are not in the cache")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetch-") as scratch:
        into = Path(scratch) / "jars"
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={into}"]
        command = [maven, "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", str(_POM), *goal]
        code, output = _run(command, env)
        if code != 0 or not any(into.glob("kafka_*.jar")):
            raise NoRealKafka(
                f"Maven could not fetch Apache Kafka (exit status {code}): {_first_error(output)}"
            )
        into.rename(jars)


def _run(command: list[str], env: Mapping[str, str]) -> tuple[int | None, str]:
    """Exit status (None: not done in time) and output; whatever it started ends with it."""
    process = subprocess.Popen(
        command,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=FETCH_S_MAX)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, f"not done within {FETCH_S_MAX:g} s\n{output}"
        raise
    return process.returncode, output


def _first_error(output: str) -> str:
    plain = _COLOUR.sub("", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("[ERROR]")]
    return (errors or lines or ["no output"])[0][:500]
