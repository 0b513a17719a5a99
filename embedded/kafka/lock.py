"""`python -m embedded.kafka.lock [VERSION]`: renew `jars.lock`, the exact list of jars that the broker needs.

To change the version of Kafka, run it, review the difference, run the tests, and commit the file.
"""

import sys
import tempfile
from pathlib import Path

from embedded.kafka.jars import LOCK_FILE, context, sha256_of
from runtime.platform.errors import OperatorError

KAFKA = "org.apache.kafka:kafka_2.13"
#: The binding between Kafka's logging interface and log4j, which Kafka's POM leaves to the distribution.
BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"

#: Dependencies that the broker never loads in this configuration, and why.
UNNEEDED = {
    "jackson-dataformat-csv": "output of command-line tools",
    "jackson-dataformat-yaml": "log4j configurations in YAML; ours is a properties file",
    "snakeyaml": "the same",
    "jackson-datatype-jdk8": "no class refers to it",
    "scala-reflect": "macros, at compile time",
    "jspecify": "annotations, at compile time",
    "jose4j": "OAuth",
    "commons-beanutils": "commons-validator's XML rules; the broker uses only its checks of addresses",
    "commons-digester": "the same",
    "commons-collections": "the same",
    "commons-logging": "the same",
}


def renew(version: str, lock_file: Path = LOCK_FILE) -> int:
    """Resolve Kafka `version` with its dependencies and write the lock; return the number of jars."""
    with tempfile.TemporaryDirectory() as directory:
        maven = context(Path(directory))
        inputs, transitive = maven.resolver.resolve([maven.create_dependency(f"{KAFKA}:{version}")])
        needed = [dependency for dependency in inputs + transitive if dependency.artifactId not in UNNEEDED]
        log4j = next(d.version for d in transitive if d.artifactId == "log4j-core")
        needed.append(maven.create_dependency(f"{BINDING}:{log4j}"))
        lines = []
        for dependency in needed:
            path = dependency.artifact.resolve()
            coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            lines.append(f"{coordinate} {sha256_of(path)} {path.stat().st_size}\n")
    header = (
        "# The jars of the embedded Kafka: coordinate, SHA-256, bytes. Renew: python -m embedded.kafka.lock VERSION\n"
    )
    lock_file.write_text(header + "".join(lines))
    return len(lines)


def main() -> None:
    """Run the command: without an argument the version stays and the hashes are computed again."""
    current = LOCK_FILE.read_text().split(f"{KAFKA}:")[1].split()[0] if LOCK_FILE.exists() else None
    version = sys.argv[1] if len(sys.argv) > 1 else current
    if version is None:
        sys.exit("usage: python -m embedded.kafka.lock VERSION")
    try:
        count = renew(version)
    except OperatorError as problem:
        sys.exit(str(problem))
    sys.stdout.write(f"{LOCK_FILE.name}: Kafka {version}, {count} jars\n")


if __name__ == "__main__":
    main()
